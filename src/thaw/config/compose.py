"""Compose and check a whole command line before a slow library is imported or a run is started.

Every job of a sweep is checked, and every problem is reported at once.
"""

from __future__ import annotations

import os
import re
import secrets
import time
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from thaw.config.catalog import get_config_folder as get_config_folder
from thaw.config.command import CONFIG_NAME as CONFIG_NAME
from thaw.config.command import Command as Command
from thaw.config.command import parse_command as parse_command
from thaw.config.errors import Problem, UserError, format_count
from thaw.config.job_composer import Composer
from thaw.config.job_composer import resolve_values as resolve_values
from thaw.config.overrides import GroupChoices, find_unused_launchers, parse_overrides
from thaw.config.preset_files import PresetFolder, find_problems_in_presets

if TYPE_CHECKING:  # pydantic takes 0.1 s, and a wrong choice or an unknown group is reported without it
    from thaw.config.schema import Recipe

MAX_JOB_NAME_LENGTH = 100
MIN_FOLDS, MAX_FOLDS = 2, 1000  # as in the schema, which is not imported here
MAX_DATASET_NAME_LENGTH = 60
ARCHIVE_SUFFIX = re.compile(r"\.(zip|tar|tgz|tar\.(gz|bz2|xz))$", re.IGNORECASE)


def register_resolvers(command_line: Sequence[str]) -> None:
    """Register the interpolations of `conf/config.yaml` that name run directories. A job of a sweep may be named in
    another process, which therefore needs the `command_line`."""
    OmegaConf.register_new_resolver(
        "thaw.now", lambda: time.strftime("%Y-%m-%d_%H-%M-%S"), use_cache=True, replace=True
    )
    OmegaConf.register_new_resolver("thaw.unique", lambda: secrets.token_hex(3), use_cache=True, replace=True)
    OmegaConf.register_new_resolver(
        "thaw.job_name", lambda overrides: build_job_name(overrides, command_line), replace=True
    )
    OmegaConf.register_new_resolver("thaw.folder_name", _name_dataset, replace=True)
    OmegaConf.register_new_resolver("thaw.fold_numbers", list_fold_numbers, replace=True)


def _name_dataset(_parent_: DictConfig) -> str:
    """Return the name of a data set that has none of its own: that of its root, or its kind as long as it has none."""
    root = None if OmegaConf.is_missing(_parent_, "root") else _parent_.get("root")
    return build_dataset_name(root) if isinstance(root, str) else str(_parent_.get("kind"))


def build_dataset_name(root: str) -> str:
    """Return the last part of the path `root`, without the suffix of an archive, as a plain word: it becomes part of
    the names of folders."""
    path = os.path.abspath(os.path.expanduser(root))  # noqa: PTH100, PTH111 - Path.expanduser fails for unknown users
    name = ARCHIVE_SUFFIX.sub("", Path(path).name)
    word = re.sub(r"[^\w.-]+", "-", unicodedata.normalize("NFC", name)).strip("-.")
    return word[:MAX_DATASET_NAME_LENGTH] or "folder"


def list_fold_numbers(folds: Any) -> str:
    """Return the values of `fold` in a sweep over all of them, as an override has them: range(0,5). For a number that
    the schema rejects it is a single value, so that this one problem is reported once."""
    is_valid = isinstance(folds, int) and MIN_FOLDS <= folds <= MAX_FOLDS
    return f"range(0,{folds})" if is_valid else "0"


@dataclass(frozen=True)
class CheckedCommand:
    """A valid command. `arguments` are passed to Hydra; `config` is the composed configuration with Hydra's section:
    for a sweep the part that all jobs share, for help an empty one. `num_jobs` is None if another sweeper than thaw's
    decides it."""

    arguments: list[str]
    config: DictConfig
    config_loader: ConfigLoader
    num_jobs: int | None = 1

    def build_recipe(self) -> Recipe:
        """Return the recipe of a single run.

        Raises:
            UserError: with all problems.
        """
        from thaw.config.validation import validate_recipe

        return validate_recipe(resolve_values(self.config))


def check_command(command: Command) -> CheckedCommand:
    """Compose and validate every job of `command`. If it prints help or the configuration, only the overrides are
    checked: a configuration may be printed before it is complete.

    Raises:
        UserError: with all problems of all jobs, each once.
    """
    with _open_composer(command) as composer:
        valid_overrides, problems = parse_overrides(command.overrides, command.multirun, composer.group_choices)
        if not command.has_shipped_config:
            folder = composer.group_choices.preset_folder or PresetFolder(get_config_folder())
            if preset_problems := find_problems_in_presets(folder, valid_overrides, command.config_name):
                raise_problems([*problems, *preset_problems])
        is_default_recipe = not valid_overrides and command.has_shipped_config
        if not command.shows_help and not (problems and is_default_recipe):
            from thaw.config.job_checks import find_problems_in_jobs

            problems += find_problems_in_jobs(valid_overrides, composer)
            problems += [] if command.multirun else find_unused_launchers(valid_overrides)
        if problems:
            raise_problems(problems)
        return _build_checked_command(composer, valid_overrides)


def raise_problems(problems: Sequence[Problem]) -> NoReturn:
    """Raise a UserError with `problems`, each once."""
    problems = list(dict.fromkeys(problems))
    headline = f"{format_count(len(problems), 'problem')} in the command. Nothing was started."
    raise UserError(headline, problems)


def _build_checked_command(composer: Composer, overrides: Sequence[Override]) -> CheckedCommand:
    from thaw.config.hydra_settings import expand_directory

    command = composer.command
    if command.shows_help:
        arguments = [
            composer.force_override(override) if override in command.overrides else override
            for override in command.arguments
        ]
        return CheckedCommand(arguments, OmegaConf.create(), composer.config_loader)
    if command.multirun:
        from thaw.config.job_checks import count_jobs, parse_preset_overrides

        shared_config = composer.compose_shared_config(overrides)
        expand_directory(shared_config, "sweep")
        all_overrides = [*parse_preset_overrides(overrides, shared_config, composer), *overrides]
        lines = composer.force_overrides([override.input_line or "" for override in all_overrides])
        return CheckedCommand(lines, shared_config, composer.config_loader, count_jobs(shared_config, all_overrides))
    config = composer.compose_job(command.overrides)
    expand_directory(config, "run")
    return CheckedCommand(composer.force_overrides(command.overrides), config, composer.config_loader)


def compose_recipe(overrides: Sequence[str]) -> Recipe:
    """Return the recipe of `overrides`. What only a training needs, a `fold` of `folds`, may be missing.

    Raises:
        UserError: with all problems.
    """
    return check_command(replace(parse_command(overrides), trains=False)).build_recipe()


@contextmanager
def _open_composer(command: Command) -> Iterator[Composer]:
    folder = PresetFolder(Path(command.config_dir).expanduser()) if command.config_dir is not None else None
    if folder and (problems := list(folder.find_problems())):
        raise_problems(problems)
    register_resolvers(command.arguments)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(get_config_folder()), version_base="1.3", job_name=CONFIG_NAME):
        config_loader = GlobalHydra.instance().config_loader()
        yield Composer(command, config_loader, GroupChoices(config_loader, folder))


def build_job_name(overrides: Iterable[str], command_line: Collection[str]) -> str:
    """Return the name of a job's directory, such as strategy=fixed,seed=1, from the `overrides` of the job.

    Overrides that are not in `command_line` were swept over; the name has only them, or all if there are none.
    Overrides beyond MAX_JOB_NAME_LENGTH are left out, and only the last part of a path is kept."""
    relevant_overrides = [line for line in overrides if not _is_launch_override(line)]
    # Hydra escapes ${seed}. Other keys keep the names of version 0.2: a resumed sweep finds its runs by them.
    written_overrides = [line.replace(r"split_seed=$\{seed\}", "split_seed=${seed}") for line in relevant_overrides]
    swept_overrides = [line for line in written_overrides if line not in command_line]
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


@contextmanager
def preserve_hydra() -> Iterator[None]:
    """Restore Hydra's global state after the context: its loader, and the configuration of the current job."""
    from hydra.core.hydra_config import HydraConfig

    loader, config = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    try:
        yield
    finally:
        GlobalHydra.instance().hydra, HydraConfig.instance().cfg = loader, config
