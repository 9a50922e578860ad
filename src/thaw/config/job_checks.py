"""Compose every job of a command with Hydra, and find the problems of each before any starts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from thaw.config.errors import Problem
from thaw.config.overrides import GroupChoices, detect_missing_launcher, force_override, get_first_line
from thaw.config.renamed_keys import find_new_key
from thaw.config.schema import Recipe
from thaw.config.search_space import check_search_validation, extreme_points, find_search_problems, is_search
from thaw.config.validation import find_problems

CONFIG_NAME = "config"
MAX_CHECKED_JOBS = 9  # before the first starts; composing a job takes about 0.1 s


@dataclass(frozen=True)
class Command:
    """A parsed command line. `arguments` are all words, options first; `shows_help` is true if it prints help or the
    configuration and trains nothing."""

    arguments: tuple[str, ...]
    overrides: tuple[str, ...]
    multirun: bool
    shows_help: bool
    config_dir: str | None
    config_name: str

    @property
    def has_shipped_config(self) -> bool:
        """Whether the recipe without overrides is the one in `conf/`, which is valid."""
        return self.config_dir is None and self.config_name == CONFIG_NAME


@dataclass(frozen=True)
class Composer:
    """Compose the jobs of `command`, each once, because that takes about 0.1 s."""

    command: Command
    config_loader: ConfigLoader
    group_choices: GroupChoices
    composed_configs: dict[tuple[RunMode, tuple[str, ...]], DictConfig] = field(default_factory=dict)

    def compose_job(self, lines: Sequence[str]) -> DictConfig:
        """Compose one job with the overrides `lines`."""
        return self._load_config(self.force_overrides(lines), RunMode.RUN)

    def compose_shared_config(self, overrides: Sequence[Override]) -> DictConfig:
        """Compose the part of a sweep that all its jobs share."""
        return self._load_config(
            self.force_overrides([override.input_line or "" for override in overrides]), RunMode.MULTIRUN
        )

    def force_override(self, line: str) -> str:
        """Return `line` as `overrides.force_override` does."""
        return force_override(line, self.group_choices)

    def force_overrides(self, lines: Sequence[str]) -> list[str]:
        """Return the overrides that Hydra gets: `lines`, forced, and the search path of the user's own presets."""
        search_path_overrides = [
            f"hydra.searchpath=[file://{Path(config_dir).resolve()}]"
            for config_dir in (self.command.config_dir,)
            if config_dir
        ]
        return [*map(self.force_override, lines), *search_path_overrides]

    def _load_config(self, lines: Sequence[str], mode: RunMode) -> DictConfig:
        key = (mode, tuple(lines))
        if key not in self.composed_configs:
            try:
                self.composed_configs[key] = self.config_loader.load_configuration(
                    self.command.config_name, list(lines), run_mode=mode
                )
            except (ValueError, YAMLError) as error:  # a defaults list with `off` without quotes; a syntax error
                raise ConfigCompositionException(" ".join(str(error).split())) from error
        return self.composed_configs[key]


def resolve_values(config: DictConfig) -> dict[str, Any]:
    """Return the values of the recipe, with interpolations resolved and without Hydra's section."""
    recipe_config = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    values = OmegaConf.to_container(recipe_config, resolve=True, throw_on_missing=False)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def find_problems_in_jobs(overrides: Sequence[Override], composer: Composer) -> Iterator[Problem]:
    """Yield the problems of the run, or of the sweep and of its jobs."""
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


def _check_preset_without_sweep(composer: Composer, lines: Sequence[str]) -> Iterator[Problem]:
    """Yield a problem for a preset of conf/sweep/ without -m: its values would be ignored."""
    preset_lines = [line for line in lines if line.lstrip("+").startswith("sweep=")]
    try:
        if preset_lines and composer.compose_job(lines).hydra.runtime.choices.get("sweep"):
            yield Problem(preset_lines[0], "a preset for sweeps", "with -m", f"put -m in front: -m {preset_lines[0]}")
    except (HydraException, OmegaConfBaseException):
        return  # reported before


def _select_jobs_to_check(overrides: Sequence[Override], composer: Composer) -> list[list[str]]:
    """Return the jobs that are checked before the first one starts: all of a small sweep; of a large one a few, evenly
    from those in which a single override differs from its first value. Each job is checked again when it starts."""
    if not composer.command.multirun:
        return [[override.input_line or "" for override in overrides]]
    shared_config = composer.compose_shared_config(overrides)
    all_overrides = [*parse_preset_overrides(overrides, shared_config, composer), *overrides]
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
    """Return at most MAX_CHECKED_JOBS of `jobs`, evenly spaced."""
    indices = {number * (len(jobs) - 1) // (MAX_CHECKED_JOBS - 1) for number in range(MAX_CHECKED_JOBS)}
    return [jobs[index] for index in sorted(indices)]


def _find_problems_in_sweep(overrides: Sequence[Override], composer: Composer) -> Iterator[Problem]:
    """Yield the problems of a sweep that no single job has."""
    if not composer.command.multirun:
        return
    shared_config = composer.compose_shared_config(overrides)
    all_overrides = [*parse_preset_overrides(overrides, shared_config, composer), *overrides]
    if is_search(shared_config):
        yield from find_search_problems(shared_config, all_overrides)
        values = resolve_values(composer.compose_job(extreme_points(all_overrides)[0]))
        yield from [] if find_problems(values) else check_search_validation(Recipe.model_validate(values))
    elif not has_adaptive_sweeper(shared_config):
        for override in (override for override in all_overrides if override.is_interval_sweep()):
            fix = f"{override.key_or_group}=VALUE,VALUE, or sweep=search"
            yield Problem(str(override.input_line), "an interval", "a list of values", fix)


def has_adaptive_sweeper(shared_config: DictConfig) -> bool:
    """Whether the sweeper chooses values from earlier results, as every sweeper but Hydra's own may do."""
    return str(shared_config.hydra.sweeper.get("_target_", "")).rpartition(".")[2] != BasicSweeper.__name__


def count_jobs(shared_config: DictConfig, all_overrides: Sequence[Override]) -> int | None:
    """Return the number of jobs of a sweep; None if another sweeper than thaw's decides it."""
    if is_search(shared_config):
        return int(shared_config.hydra.sweeper.trials)
    return None if has_adaptive_sweeper(shared_config) else len(_expand_job_grid(all_overrides))


def _expand_job_grid(overrides: Sequence[Override]) -> list[list[str]]:
    (jobs,) = BasicSweeper.split_arguments(list(overrides), max_batch_size=None)
    return [list(job) for job in jobs]


def parse_preset_overrides(
    overrides: Sequence[Override], shared_config: DictConfig, composer: Composer
) -> list[Override]:
    """Return the overrides of a preset of conf/sweep/, without keys that the command line sets. `shared_config` is the
    part that all jobs share."""
    command_line_keys = {override.key_or_group for override in overrides}
    params = (
        {}
        if has_adaptive_sweeper(shared_config) and not is_search(shared_config)
        else shared_config.hydra.sweeper.get("params") or {}
    )
    lines = [composer.force_override(f"{key}={value}") for key, value in params.items() if key not in command_line_keys]
    return list(OverridesParser.create(config_loader=composer.config_loader).parse_overrides(lines))


def _find_problems_in_job(job: Sequence[str], composer: Composer) -> Iterator[Problem]:
    """Yield the problems of one job. Overrides with a problem are removed and the others checked again, so that a
    wrong type does not hide a contradiction; a problem with the default of a removed key is not reported."""
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
        remaining_lines = [line for line in remaining_lines if line not in blamed_lines]
        if not blamed_lines or (not remaining_lines and composer.command.has_shipped_config):
            return


def _is_blamed_on(key: str, line: str) -> bool:
    override_key = line.lstrip("+~").split("=", 1)[0]
    is_nested_key = "." in override_key and key.startswith(f"{override_key}.")
    return key == override_key or is_nested_key or override_key.startswith(f"{key}.")


def _build_composition_problem(error: Exception) -> Problem:
    message = str(error)
    old_group = re.search(r"Could not override '(?:[\w.]*/)*(\w+)'", message)
    if old_group and (new_group := find_new_key(old_group[1])):  # a defaults list that was written for version 0.1
        return Problem(
            message.splitlines()[0], f"the group {old_group[1]} of version 0.1", new_group, f"override /{new_group}"
        )
    return detect_missing_launcher(message) or Problem(
        "the configuration cannot be composed",
        get_first_line(error),
        fix='quote on, off, yes and no: "off"'
        if "value in defaults : bool" in message
        else "python train.py --help lists groups and choices",
    )
