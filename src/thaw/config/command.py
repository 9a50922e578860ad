"""Checks a whole command line before anything is imported or started: every job of a sweep, every fault at once."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
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

from thaw.config.extras import idle_launchers, missing_launcher
from thaw.config.faults import Fault, UserFault
from thaw.config.job_name import job_name
from thaw.config.overrides import Choices, first_line, forced, sorted_out
from thaw.config.schema import Recipe
from thaw.config.search import corners, faults_of_search, is_search, without_validation
from thaw.config.validation import faults_in, validated

CONFIG_NAME = "config"
MOST_JOBS_CHECKED = 9  # before the first starts; composing one takes about 0.1 s


def config_folder() -> Path:
    """`conf/`: inside the installed package, or at the root of a checkout."""
    package = Path(__file__).resolve().parents[1]
    shipped = package / "conf"
    return shipped if shipped.is_dir() else package.parents[1] / "conf"


def register_resolvers(typed: Sequence[str]) -> None:
    """The interpolations of `conf/config.yaml` that name run directories. `typed` is the command line: a job of a sweep
    may be named in another process."""
    OmegaConf.register_new_resolver(
        "thaw.now", lambda: time.strftime("%Y-%m-%d_%H-%M-%S"), use_cache=True, replace=True
    )
    OmegaConf.register_new_resolver("thaw.unique", lambda: secrets.token_hex(3), use_cache=True, replace=True)
    OmegaConf.register_new_resolver("thaw.job_name", lambda overrides: job_name(overrides, typed), replace=True)


@dataclass(frozen=True)
class Command:
    """A parsed command line; `arguments` are all of it, options first. `informs` where it asks for help or a printed
    config and trains nothing."""

    arguments: tuple[str, ...]
    overrides: tuple[str, ...]
    multirun: bool
    informs: bool
    config_dir: str | None
    config_name: str


def parsed(arguments: Sequence[str]) -> Command:
    """Raises SystemExit(2) with argparse's usage for an unknown option."""
    ordered = sorted(arguments, key=_is_override)  # argparse takes no options between overrides
    known = get_args_parser().parse_args(ordered)
    informs = bool(known.help or known.hydra_help or known.cfg or known.info or known.shell_completion)
    name = known.config_name or CONFIG_NAME
    return Command(tuple(ordered), tuple(known.overrides), known.multirun, informs, known.config_dir, name)


def _is_override(argument: str) -> bool:
    return not argument.startswith("-") and ("=" in argument or argument.startswith("~"))


@dataclass(frozen=True)
class Checked:
    """A command without faults. `arguments` are those that Hydra is to get, `config` is what they compose, with Hydra's
    own part: of a sweep what all jobs share; of a command that asks for help nothing. `jobs`: how many; None where a
    sweeper that is not thaw's decides that."""

    arguments: list[str]
    config: DictConfig
    loader: ConfigLoader
    jobs: int | None = 1

    def recipe(self) -> Recipe:
        return validated(values_of(self.config))


def checked(command: Command) -> Checked:
    """`command`, after every job of it was composed and validated. Of a command that asks for help or a printed config
    only the overrides are looked at: a config may be printed before it is complete.

    Raises:
        UserFault: with all faults of all jobs, each told once.
    """
    with _composer(command) as composer:
        sound, faults = sorted_out(command.overrides, command.multirun, command.config_dir is None, composer.choices)
        if not command.informs:
            faults += _faults_of_jobs(sound, composer)
            faults += [] if command.multirun else idle_launchers(sound)
        if faults := list(dict.fromkeys(faults)):
            counted = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
            raise UserFault(f"{counted} in the command; nothing was started.", faults)
        return composer.result(sound)


def recipe_for(overrides: Sequence[str]) -> Recipe:
    """The recipe that `python train.py OVERRIDES` trains, for use from Python.

    Raises:
        UserFault: with all faults.
    """
    return checked(parsed(overrides)).recipe()


def values_of(config: DictConfig) -> dict[str, Any]:
    """The recipe's values, resolved; without Hydra's own part."""
    recipe = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    values = OmegaConf.to_container(recipe, resolve=True, throw_on_missing=False)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


@contextmanager
def _composer(command: Command) -> Iterator[_Composer]:
    register_resolvers(command.arguments)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_folder()), version_base="1.3", job_name=CONFIG_NAME):
        loader = GlobalHydra.instance().config_loader()
        yield _Composer(command, loader, Choices(loader))


@dataclass(frozen=True)
class _Composer:
    """Composes the jobs of `command`, each once: composing takes about 0.1 s."""

    command: Command
    loader: ConfigLoader
    choices: Choices
    composed: dict[tuple[RunMode, tuple[str, ...]], DictConfig] = field(default_factory=dict)

    def job(self, lines: Sequence[str]) -> DictConfig:
        return self._loaded(self._forced(lines), RunMode.RUN)

    def shared(self, overrides: Sequence[Override]) -> DictConfig:
        """Of a sweep, without what is swept over."""
        return self._loaded(self._forced([one.input_line or "" for one in overrides]), RunMode.MULTIRUN)

    def result(self, overrides: Sequence[Override]) -> Checked:
        command = self.command
        if command.informs:
            arguments = [self.forced(one) if one in command.overrides else one for one in command.arguments]
            return Checked(arguments, OmegaConf.create(), self.loader)
        if command.multirun:
            shared = self.shared(overrides)
            swept = [*_preset(overrides, shared, self), *overrides]
            lines = self._forced([one.input_line or "" for one in swept])
            return Checked(lines, shared, self.loader, _count(shared, swept))
        return Checked(self._forced(command.overrides), self.job(command.overrides), self.loader)

    def forced(self, line: str) -> str:
        return forced(line, self.choices)

    def _forced(self, lines: Sequence[str]) -> list[str]:
        places = [f"hydra.searchpath=[file://{Path(one).resolve()}]" for one in (self.command.config_dir,) if one]
        return [*map(self.forced, lines), *places]

    def _loaded(self, lines: Sequence[str], mode: RunMode) -> DictConfig:
        key = (mode, tuple(lines))
        if key not in self.composed:
            self.composed[key] = self.loader.load_configuration(self.command.config_name, list(lines), run_mode=mode)
        return self.composed[key]


def _faults_of_jobs(overrides: Sequence[Override], composer: _Composer) -> Iterator[Fault]:
    try:
        jobs = _jobs(overrides, composer)
        yield from _faults_of_sweep(overrides, composer)
    except (HydraException, OmegaConfBaseException) as error:
        yield _composition_fault(error)
        return
    for job in jobs:
        yield from _faults_of_job(job, composer)
    if not composer.command.multirun:
        yield from _preset_without_a_sweep(composer, jobs[0])


def _preset_without_a_sweep(composer: _Composer, lines: Sequence[str]) -> Iterator[Fault]:
    """A preset of conf/sweep/ has values for a sweep alone: without -m they would be passed over in silence."""
    named = [line for line in lines if line.lstrip("+").startswith("sweep=")]
    try:
        if named and composer.job(lines).hydra.runtime.choices.get("sweep"):
            yield Fault(named[0], "the preset of a sweep", "with -m", f"put -m in front: -m {named[0]}")
    except (HydraException, OmegaConfBaseException):
        return  # told before


def _jobs(overrides: Sequence[Override], composer: _Composer) -> list[list[str]]:
    """The jobs that are checked before the first one starts; of a large sweep some, spread evenly over those where a
    single override has left its first value. Each job is checked again when it starts."""
    if not composer.command.multirun:
        return [[one.input_line or "" for one in overrides]]
    shared = composer.shared(overrides)
    swept = [*_preset(overrides, shared, composer), *overrides]
    if is_search(shared):
        return _spread(corners(swept))
    if searches(shared):
        return [[one.input_line or "" for one in overrides if not one.is_sweep_override()]]
    jobs = _product([one for one in swept if not one.is_interval_sweep()])
    if len(jobs) <= MOST_JOBS_CHECKED:
        return jobs
    return _spread([job for job in jobs if sum(one != first for one, first in zip(job, jobs[0], strict=True)) <= 1])


def _spread(near: Sequence[list[str]]) -> list[list[str]]:
    """MOST_JOBS_CHECKED of `near` at most, evenly."""
    places = {number * (len(near) - 1) // (MOST_JOBS_CHECKED - 1) for number in range(MOST_JOBS_CHECKED)}
    return [near[place] for place in sorted(places)]


def _faults_of_sweep(overrides: Sequence[Override], composer: _Composer) -> Iterator[Fault]:
    """What its jobs, each by itself, do not show."""
    if not composer.command.multirun:
        return
    shared = composer.shared(overrides)
    swept = [*_preset(overrides, shared, composer), *overrides]
    if is_search(shared):
        yield from faults_of_search(shared, swept)
        values = values_of(composer.job(corners(swept)[0]))
        yield from [] if faults_in(values) else without_validation(Recipe.model_validate(values))
    elif not searches(shared):
        for one in (one for one in swept if one.is_interval_sweep()):
            fix = f"{one.key_or_group}=VALUE,VALUE, or sweep=search"
            yield Fault(str(one.input_line), "an interval", "values that can be counted", fix)


def searches(shared: DictConfig) -> bool:
    """Whether the values of a sweep are chosen as it goes, by another sweeper than Hydra's own."""
    return str(shared.hydra.sweeper.get("_target_", "")).rpartition(".")[2] != BasicSweeper.__name__


def _count(shared: DictConfig, swept: Sequence[Override]) -> int | None:
    if is_search(shared):
        return int(shared.hydra.sweeper.trials)
    return None if searches(shared) else len(_product(swept))


def _product(overrides: Sequence[Override]) -> list[list[str]]:
    (jobs,) = BasicSweeper.split_arguments(list(overrides), max_batch_size=None)
    return [list(job) for job in jobs]


def _preset(overrides: Sequence[Override], shared: DictConfig, composer: _Composer) -> list[Override]:
    """What a preset of conf/sweep/ sweeps over, but for what the command line sets itself. `shared` is what all jobs
    have in common."""
    typed = {one.key_or_group for one in overrides}
    params = {} if searches(shared) and not is_search(shared) else shared.hydra.sweeper.get("params") or {}
    lines = [composer.forced(f"{key}={value}") for key, value in params.items() if key not in typed]
    return list(OverridesParser.create(config_loader=composer.loader).parse_overrides(lines))


def _faults_of_job(job: Sequence[str], composer: _Composer) -> Iterator[Fault]:
    """Faults of one job. What is blamed on an override is taken out and the rest looked at again, so that a wrong
    type does not hide a contradiction; what then speaks of a key that was taken out speaks of a value not meant."""
    remaining, told = list(job), set[str]()
    while True:
        try:
            found = faults_in(values_of(composer.job(remaining)))
        except (HydraException, OmegaConfBaseException) as error:
            yield _composition_fault(error)
            return
        yield from (fault for key, fault in found if not any(one == key or one in fault.subject for one in told))
        told.update(key for key, _ in found)
        blamed = [line for line in remaining if any(_blames(key, line) for key, _ in found)]
        if not blamed:
            return
        remaining = [line for line in remaining if line not in blamed]


def _blames(key: str, line: str) -> bool:
    named = line.lstrip("+~").split("=", 1)[0]
    inside = "." in named and key.startswith(f"{named}.")
    return key == named or inside or named.startswith(f"{key}.")


def _composition_fault(error: Exception) -> Fault:
    return missing_launcher(str(error)) or Fault(
        "the configuration cannot be composed",
        first_line(error),
        fix="python train.py --help lists groups and choices",
    )
