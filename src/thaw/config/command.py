"""Checks a whole command line before anything is imported or started: every job of a sweep, every fault at once."""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from thaw.config.faults import Fault, UserFault, listing, nearest
from thaw.config.job_name import job_name
from thaw.config.schema import Recipe
from thaw.config.validation import faults_in, validated

CONFIG_NAME = "config"
MOST_JOBS_CHECKED = 9  # before the first starts; composing one takes about 0.1 s


def config_folder() -> Path:
    """`conf/`: inside the installed package, or at the root of a checkout."""
    package = Path(__file__).resolve().parents[1]
    shipped = package / "conf"
    return shipped if shipped.is_dir() else package.parents[1] / "conf"


def register_resolvers() -> None:
    """The interpolations of `conf/config.yaml` that name run directories."""
    OmegaConf.register_new_resolver(
        "thaw.now", lambda: time.strftime("%Y-%m-%d_%H-%M-%S"), use_cache=True, replace=True
    )
    OmegaConf.register_new_resolver("thaw.unique", lambda: secrets.token_hex(3), use_cache=True, replace=True)
    OmegaConf.register_new_resolver("thaw.job_name", lambda overrides: job_name(overrides, sys.argv), replace=True)


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


def checked(command: Command) -> list[str]:
    """The arguments as Hydra is to get them, after every job of `command` was composed and validated. Of a command that
    asks for help or a printed config only the overrides are looked at: a config may be printed before it is complete.

    Raises:
        UserFault: with all faults of all jobs, each told once.
    """
    register_resolvers()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        found = _sorted_out(command, loader)[1] if command.informs else _faults(command, loader)
        faults = list(dict.fromkeys(found))
        arguments = [_forced(one, loader) if one in command.overrides else one for one in command.arguments]
    if faults:
        counted = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise UserFault(f"{counted} in the command; nothing was started.", faults)
    return arguments


def recipe_for(overrides: Sequence[str]) -> Recipe:
    """The recipe that `python train.py OVERRIDES` trains, for use from Python.

    Raises:
        UserFault: with all faults.
    """
    command = parsed(overrides)
    checked(command)
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return validated(_composed(overrides, command, GlobalHydra.instance().config_loader()))


def _faults(command: Command, loader: ConfigLoader) -> Iterator[Fault]:
    sound, faults = _sorted_out(command, loader)
    yield from faults
    jobs = _jobs(sound) if command.multirun else [[one.input_line or "" for one in sound]]
    for job in jobs:
        yield from _faults_of_job(job, command, loader)


def _sorted_out(command: Command, loader: ConfigLoader) -> tuple[list[Override], list[Fault]]:
    """The overrides that can be composed, and the faults of those that cannot. Which keys a group has is open while
    its choice is wrong, so they are not judged then."""
    sound, faults, unsettled = [], [], set[str]()
    parser = OverridesParser.create(config_loader=loader)
    for line in command.overrides:
        try:
            (override,) = parser.parse_overrides([line])  # unlike parse_override it lets glob(*) know the choices
        except HydraException as error:
            faults.append(_unreadable(line, error))
            continue
        found = list(_faults_of_override(override, command, loader))
        faults.extend(found)
        sound.extend([] if found else [override])
        unsettled.update([override.key_or_group] if found else [])
    return [one for one in sound if one.key_or_group.split(".")[0] not in unsettled], faults


def _unreadable(line: str, error: HydraException) -> Fault:
    if "=" not in line:
        return Fault(line, "a key without a value", "key=value", f"{line}=VALUE")
    value = line.split("=", 1)[1]
    got = f"{value!r}: {_first_line(error.__cause__ or error)}" if value else "nothing after ="
    return Fault(line, got, "key=value", "quote a value that holds spaces or = , [ ] { }: 'key=\"VALUE\"'")


def _faults_of_override(override: Override, command: Command, loader: ConfigLoader) -> Iterator[Fault]:
    key, choices = override.key_or_group, loader.get_group_options(override.key_or_group)
    if override.is_sweep_override() and not command.multirun:
        yield Fault(
            str(override.input_line),
            "several values",
            "one value, or a sweep",
            f"put -m in front: -m {override.input_line}",
        )
    elif override.is_interval_sweep():
        yield Fault(str(override.input_line), "an interval", "values that can be counted", f"{key}=VALUE,VALUE")
    elif choices and command.config_dir is None:
        values = list(override.sweep_string_iterator()) if override.is_sweep_override() else [override.value()]
        if not values:  # a sweep over nothing would end at once, as if all were well
            yield Fault(str(override.input_line), "a pattern that no choice fits", listing(choices))
        yield from _unknown_choices(key, values, choices)
    elif not choices and not override.is_sweep_override() and "." not in key and isinstance(override.value(), str):
        yield from _unknown_group(key, str(override.value()), loader)


def _unknown_choices(group: str, values: Sequence[Any], choices: list[str]) -> Iterator[Fault]:
    for value in values:
        named = value if isinstance(value, list) else [value]
        for name in [str(one) for one in named if one is not None and str(one) not in (*choices, "null")]:
            closest = nearest(name, choices)
            fix = _way_to_any(group, name) or (f"{group}={closest}" if closest else "")
            yield Fault(f"{group}={name}", f"{name!r}, no choice of the group {group}", listing(choices), fix)


def _way_to_any(group: str, name: str) -> str:
    from thaw.config.catalog import backbone_names, torch_optimizer

    if group == "optimizer" and torch_optimizer(name):
        return f"optimizer=torch optimizer.name={name}"
    fitting = [
        library for library in ("torchvision", "timm") if group == "backbone" and name in backbone_names(library)
    ]
    return f"backbone={fitting[0]} backbone.name={name}" if fitting else ""


def _unknown_group(key: str, value: str, loader: ConfigLoader) -> Iterator[Fault]:
    groups = [group for group in loader.list_groups("") if group != "hydra"]
    closest = nearest(key, groups)
    if key not in Recipe.model_fields and closest:
        yield Fault(f"{key}={value}: no such group", valid=listing(groups), fix=f"{closest}={value}")


def _jobs(overrides: Sequence[Override]) -> list[list[str]]:
    """The jobs of a sweep that are checked before the first one starts; of a large sweep some, spread evenly over those
    where a single override has left its first value. Each job is checked again when it starts."""
    (jobs,) = BasicSweeper.split_arguments(list(overrides), max_batch_size=None)
    if len(jobs) <= MOST_JOBS_CHECKED:
        return [list(job) for job in jobs]
    near = [job for job in jobs if sum(one != first for one, first in zip(job, jobs[0], strict=True)) <= 1]
    places = {number * (len(near) - 1) // (MOST_JOBS_CHECKED - 1) for number in range(MOST_JOBS_CHECKED)}
    return [list(near[place]) for place in sorted(places)]


def _faults_of_job(job: Sequence[str], command: Command, loader: ConfigLoader) -> Iterator[Fault]:
    """Faults of one job. What is blamed on an override is taken out and the rest looked at again, so that a wrong
    type does not hide a contradiction; what then speaks of a key that was taken out speaks of a value not meant."""
    remaining, told = list(job), set[str]()
    while True:
        try:
            values = _composed(remaining, command, loader)
            found = faults_in(values)
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


def _composed(job: Sequence[str], command: Command, loader: ConfigLoader) -> dict[str, Any]:
    lines = [_forced(line, loader) for line in job]
    if command.config_dir:
        lines.append(f"hydra.searchpath=[file://{Path(command.config_dir).resolve()}]")
    config = compose(command.config_name, lines)
    values = OmegaConf.to_container(config, resolve=True, throw_on_missing=False)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _forced(line: str, loader: ConfigLoader) -> str:
    """A value is set even where Hydra knows no such key: the schema names all unknown keys at once, and a key can be
    set below one that is null (trainer.early_stopping.patience=5)."""
    key = line.lstrip("+").split("=", 1)[0]
    is_value = (
        not line.startswith("~") and not key.startswith("hydra") and not loader.get_group_options(key.split("@")[0])
    )
    return f"++{line.lstrip('+')}" if is_value else line


def _composition_fault(error: Exception) -> Fault:
    return Fault(
        "the configuration cannot be composed",
        _first_line(error),
        fix="python train.py --help lists groups and choices",
    )


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0]
