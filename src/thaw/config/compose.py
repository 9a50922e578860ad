"""Checks a whole command line before anything is imported or started: every job of a sweep, every fault at once."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from thaw.config.errors import Problem, UserError
from thaw.config.overrides import (
    GroupChoices,
    detect_missing_launcher,
    find_unused_launchers,
    force_override,
    get_first_line,
    parse_overrides,
)
from thaw.config.presets import get_config_folder
from thaw.config.schema import Recipe
from thaw.config.search_space import check_search_validation, extreme_points, find_search_problems, is_search
from thaw.config.validation import find_problems, validate_recipe

CONFIG_NAME = "config"
MAX_CHECKED_JOBS = 9  # before the first starts; composing one takes about 0.1 s


def register_resolvers(command_line: Sequence[str]) -> None:
    """The interpolations of `conf/config.yaml` that name run directories. `typed` is the command line: a job of a sweep
    may be named in another process."""
    OmegaConf.register_new_resolver(
        "thaw.now", lambda: time.strftime("%Y-%m-%d_%H-%M-%S"), use_cache=True, replace=True
    )
    OmegaConf.register_new_resolver("thaw.unique", lambda: secrets.token_hex(3), use_cache=True, replace=True)
    OmegaConf.register_new_resolver(
        "thaw.job_name", lambda overrides: build_job_name(overrides, command_line), replace=True
    )


@dataclass(frozen=True)
class Command:
    """A parsed command line; `arguments` are all of it, options first. `informs` where it asks for help or a printed
    config and trains nothing."""

    arguments: tuple[str, ...]
    overrides: tuple[str, ...]
    multirun: bool
    shows_help: bool
    config_dir: str | None
    config_name: str


def parse_command(arguments: Sequence[str]) -> Command:
    """Raises SystemExit(2) with argparse's usage for an unknown option."""
    sorted_arguments = sorted(arguments, key=_is_override)  # argparse takes no options between overrides
    namespace = get_args_parser().parse_args(sorted_arguments)
    shows_help = bool(
        namespace.help or namespace.hydra_help or namespace.cfg or namespace.info or namespace.shell_completion
    )
    config_name = namespace.config_name or CONFIG_NAME
    return Command(
        tuple(sorted_arguments),
        tuple(namespace.overrides),
        namespace.multirun,
        shows_help,
        namespace.config_dir,
        config_name,
    )


def _is_override(argument: str) -> bool:
    return not argument.startswith("-") and ("=" in argument or argument.startswith("~"))


@dataclass(frozen=True)
class CheckedCommand:
    """A command without faults. `arguments` are those that Hydra is to get, `config` is what they compose, with Hydra's
    own part: of a sweep what all jobs share; of a command that asks for help nothing. `jobs`: how many; None where a
    sweeper that is not thaw's decides that."""

    arguments: list[str]
    config: DictConfig
    config_loader: ConfigLoader
    num_jobs: int | None = 1

    def build_recipe(self) -> Recipe:
        return validate_recipe(resolve_values(self.config))


def check_command(command: Command) -> CheckedCommand:
    """`command`, after every job of it was composed and validated. Of a command that asks for help or a printed config
    only the overrides are looked at: a config may be printed before it is complete.

    Raises:
        UserFault: with all faults of all jobs, each told once.
    """
    with _open_composer(command) as composer:
        valid_overrides, problems = parse_overrides(
            command.overrides, command.multirun, command.config_dir is None, composer.group_choices
        )
        if not command.shows_help:
            problems += _find_problems_in_jobs(valid_overrides, composer)
            problems += [] if command.multirun else find_unused_launchers(valid_overrides)
        if problems := list(dict.fromkeys(problems)):
            problem_count = "1 fault" if len(problems) == 1 else f"{len(problems)} faults"
            raise UserError(f"{problem_count} in the command; nothing was started.", problems)
        return composer.build_checked_command(valid_overrides)


def compose_recipe(overrides: Sequence[str]) -> Recipe:
    """The recipe that `python train.py OVERRIDES` trains, for use from Python.

    Raises:
        UserFault: with all faults.
    """
    return check_command(parse_command(overrides)).build_recipe()


def resolve_values(config: DictConfig) -> dict[str, Any]:
    """The recipe's values, resolved; without Hydra's own part."""
    recipe_config = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    values = OmegaConf.to_container(recipe_config, resolve=True, throw_on_missing=False)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


@contextmanager
def _open_composer(command: Command) -> Iterator[_Composer]:
    register_resolvers(command.arguments)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(get_config_folder()), version_base="1.3", job_name=CONFIG_NAME):
        config_loader = GlobalHydra.instance().config_loader()
        yield _Composer(command, config_loader, GroupChoices(config_loader))


@dataclass(frozen=True)
class _Composer:
    """Composes the jobs of `command`, each once: composing takes about 0.1 s."""

    command: Command
    config_loader: ConfigLoader
    group_choices: GroupChoices
    composed_configs: dict[tuple[RunMode, tuple[str, ...]], DictConfig] = field(default_factory=dict)

    def compose_job(self, lines: Sequence[str]) -> DictConfig:
        return self._load_config(self._force_overrides(lines), RunMode.RUN)

    def compose_shared_config(self, overrides: Sequence[Override]) -> DictConfig:
        """Of a sweep, without what is swept over."""
        return self._load_config(
            self._force_overrides([override.input_line or "" for override in overrides]), RunMode.MULTIRUN
        )

    def build_checked_command(self, overrides: Sequence[Override]) -> CheckedCommand:
        command = self.command
        if command.shows_help:
            arguments = [
                self.force_override(override) if override in command.overrides else override
                for override in command.arguments
            ]
            return CheckedCommand(arguments, OmegaConf.create(), self.config_loader)
        if command.multirun:
            shared_config = self.compose_shared_config(overrides)
            all_overrides = [*_parse_preset_overrides(overrides, shared_config, self), *overrides]
            lines = self._force_overrides([override.input_line or "" for override in all_overrides])
            return CheckedCommand(lines, shared_config, self.config_loader, _count_jobs(shared_config, all_overrides))
        return CheckedCommand(
            self._force_overrides(command.overrides), self.compose_job(command.overrides), self.config_loader
        )

    def force_override(self, line: str) -> str:
        return force_override(line, self.group_choices)

    def _force_overrides(self, lines: Sequence[str]) -> list[str]:
        search_path_overrides = [
            f"hydra.searchpath=[file://{Path(config_dir).resolve()}]"
            for config_dir in (self.command.config_dir,)
            if config_dir
        ]
        return [*map(self.force_override, lines), *search_path_overrides]

    def _load_config(self, lines: Sequence[str], mode: RunMode) -> DictConfig:
        key = (mode, tuple(lines))
        if key not in self.composed_configs:
            self.composed_configs[key] = self.config_loader.load_configuration(
                self.command.config_name, list(lines), run_mode=mode
            )
        return self.composed_configs[key]


def _find_problems_in_jobs(overrides: Sequence[Override], composer: _Composer) -> Iterator[Problem]:
    try:
        jobs = _select_jobs_to_check(overrides, composer)
        yield from _find_problems_in_sweep(overrides, composer)
    except (HydraException, OmegaConfBaseException) as error:
        yield _build_composition_problem(error)
        return
    for job in jobs:
        yield from _find_problems_in_job(job, composer)
    if not composer.command.multirun:
        yield from _check_preset_without_sweep(composer, jobs[0])


def _check_preset_without_sweep(composer: _Composer, lines: Sequence[str]) -> Iterator[Problem]:
    """A preset of conf/sweep/ has values for a sweep alone: without -m they would be passed over in silence."""
    preset_lines = [line for line in lines if line.lstrip("+").startswith("sweep=")]
    try:
        if preset_lines and composer.compose_job(lines).hydra.runtime.choices.get("sweep"):
            yield Problem(preset_lines[0], "the preset of a sweep", "with -m", f"put -m in front: -m {preset_lines[0]}")
    except (HydraException, OmegaConfBaseException):
        return  # told before


def _select_jobs_to_check(overrides: Sequence[Override], composer: _Composer) -> list[list[str]]:
    """The jobs that are checked before the first one starts; of a large sweep some, spread evenly over those where a
    single override has left its first value. Each job is checked again when it starts."""
    if not composer.command.multirun:
        return [[override.input_line or "" for override in overrides]]
    shared_config = composer.compose_shared_config(overrides)
    all_overrides = [*_parse_preset_overrides(overrides, shared_config, composer), *overrides]
    if is_search(shared_config):
        return _sample_evenly(extreme_points(all_overrides))
    if has_adaptive_sweeper(shared_config):
        return [[override.input_line or "" for override in overrides if not override.is_sweep_override()]]
    jobs = _expand_job_grid([override for override in all_overrides if not override.is_interval_sweep()])
    if len(jobs) <= MAX_CHECKED_JOBS:
        return jobs
    return _sample_evenly(
        [
            job
            for job in jobs
            if sum(override != first_override for override, first_override in zip(job, jobs[0], strict=True)) <= 1
        ]
    )


def _sample_evenly(jobs: Sequence[list[str]]) -> list[list[str]]:
    """MOST_JOBS_CHECKED of `near` at most, evenly."""
    indices = {number * (len(jobs) - 1) // (MAX_CHECKED_JOBS - 1) for number in range(MAX_CHECKED_JOBS)}
    return [jobs[index] for index in sorted(indices)]


def _find_problems_in_sweep(overrides: Sequence[Override], composer: _Composer) -> Iterator[Problem]:
    """What its jobs, each by itself, do not show."""
    if not composer.command.multirun:
        return
    shared_config = composer.compose_shared_config(overrides)
    all_overrides = [*_parse_preset_overrides(overrides, shared_config, composer), *overrides]
    if is_search(shared_config):
        yield from find_search_problems(shared_config, all_overrides)
        values = resolve_values(composer.compose_job(extreme_points(all_overrides)[0]))
        yield from [] if find_problems(values) else check_search_validation(Recipe.model_validate(values))
    elif not has_adaptive_sweeper(shared_config):
        for override in (override for override in all_overrides if override.is_interval_sweep()):
            fix = f"{override.key_or_group}=VALUE,VALUE, or sweep=search"
            yield Problem(str(override.input_line), "an interval", "values that can be counted", fix)


def has_adaptive_sweeper(shared_config: DictConfig) -> bool:
    """Whether the values of a sweep are chosen as it goes, by another sweeper than Hydra's own."""
    return str(shared_config.hydra.sweeper.get("_target_", "")).rpartition(".")[2] != BasicSweeper.__name__


def _count_jobs(shared_config: DictConfig, all_overrides: Sequence[Override]) -> int | None:
    if is_search(shared_config):
        return int(shared_config.hydra.sweeper.trials)
    return None if has_adaptive_sweeper(shared_config) else len(_expand_job_grid(all_overrides))


def _expand_job_grid(overrides: Sequence[Override]) -> list[list[str]]:
    (jobs,) = BasicSweeper.split_arguments(list(overrides), max_batch_size=None)
    return [list(job) for job in jobs]


def _parse_preset_overrides(
    overrides: Sequence[Override], shared_config: DictConfig, composer: _Composer
) -> list[Override]:
    """What a preset of conf/sweep/ sweeps over, but for what the command line sets itself. `shared` is what all jobs
    have in common."""
    command_line_keys = {override.key_or_group for override in overrides}
    params = (
        {}
        if has_adaptive_sweeper(shared_config) and not is_search(shared_config)
        else shared_config.hydra.sweeper.get("params") or {}
    )
    lines = [composer.force_override(f"{key}={value}") for key, value in params.items() if key not in command_line_keys]
    return list(OverridesParser.create(config_loader=composer.config_loader).parse_overrides(lines))


def _find_problems_in_job(job: Sequence[str], composer: _Composer) -> Iterator[Problem]:
    """Faults of one job. What is blamed on an override is taken out and the rest looked at again, so that a wrong
    type does not hide a contradiction; what then speaks of a key that was taken out speaks of a value not meant."""
    remaining_lines, reported_keys = list(job), set[str]()
    while True:
        try:
            keyed_problems = find_problems(resolve_values(composer.compose_job(remaining_lines)))
        except (HydraException, OmegaConfBaseException) as error:
            yield _build_composition_problem(error)
            return
        yield from (
            problem
            for key, problem in keyed_problems
            if not any(reported_key == key or reported_key in problem.subject for reported_key in reported_keys)
        )
        reported_keys.update(key for key, _ in keyed_problems)
        blamed_lines = [line for line in remaining_lines if any(_is_blamed_on(key, line) for key, _ in keyed_problems)]
        if not blamed_lines:
            return
        remaining_lines = [line for line in remaining_lines if line not in blamed_lines]


def _is_blamed_on(key: str, line: str) -> bool:
    override_key = line.lstrip("+~").split("=", 1)[0]
    is_nested_key = "." in override_key and key.startswith(f"{override_key}.")
    return key == override_key or is_nested_key or override_key.startswith(f"{key}.")


def _build_composition_problem(error: Exception) -> Problem:
    return detect_missing_launcher(str(error)) or Problem(
        "the configuration cannot be composed",
        get_first_line(error),
        fix="python train.py --help lists groups and choices",
    )


MAX_JOB_NAME_LENGTH = 100


def build_job_name(overrides: Iterable[str], command_line: Collection[str]) -> str:
    """strategy=fixed,seed=1 from the `overrides` of one job. `typed` is the command line: what does not stand there as
    it is was swept over, and alone tells the jobs apart; where nothing is, all of it. Whole overrides past
    MOST_CHARACTERS are left out. Of a path the last part stays."""
    relevant_overrides = [line for line in overrides if not _is_launch_override(line)]
    swept_overrides = [line for line in relevant_overrides if line not in command_line]
    name = ",".join(filter(None, map(_format_override, swept_overrides or relevant_overrides)))
    if len(name) > MAX_JOB_NAME_LENGTH:
        name = name[: MAX_JOB_NAME_LENGTH + 1].rpartition(",")[0] or name[:MAX_JOB_NAME_LENGTH]
    return name or "default"


def _is_launch_override(line: str) -> bool:
    key = line.lstrip("+~").split("=", 1)[0]
    return key in ("output_dir", "sweep", "launcher") or re.match(r"hydra[./]", key) is not None


def _format_override(line: str) -> str:
    key, equals, value = line.lstrip("+").partition("=")
    value = re.sub(r"""[][{}'"]""", "", value).rstrip("/").rpartition("/")[2]
    return re.sub(r"[^\w.=+~-]+", "-", f"{key}{equals}{value}")
