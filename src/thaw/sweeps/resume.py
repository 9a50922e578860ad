"""What a sweep may be resumed with, and which code a sweep from a file may name."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from thaw.config.errors import Problem, UserError
from thaw.config.recipe_overrides import find_resume_problems
from thaw.runs.lifecycle import is_trusted_class

TRUSTED_TARGETS = ("hydra._internal.", "hydra_plugins.", "thaw.")
EPOCHS = "trainer.epochs"


def replace_overrides(arguments: Sequence[str], overrides: Sequence[str]) -> tuple[str, ...]:
    """Return the words of a sweep's command with `overrides` in place of those of the same keys.

    Raises:
        UserError: for a key that the jobs of a started sweep keep.
    """
    keys = {line.partition("=")[0] for line in overrides}
    problems = find_resume_problems(overrides)
    if EPOCHS in keys:
        problems.append(Problem(EPOCHS, "the jobs of a sweep keep their epochs", fix="start another sweep"))
    if problems:
        raise UserError("Nothing was started.", problems)
    kept_words = [word for word in arguments if word.partition("=")[0].lstrip("+") not in keys]
    return (*kept_words, *overrides)


def check_words_trusted(arguments: Sequence[str], trust: bool, directory: Path) -> None:
    """Raise UserError if a word of a sweep's command imports a package while the command is composed, and `trust` is
    not set."""
    if words := [word for word in arguments if "pkg:" in word]:
        _raise_unless(trust, words, directory)


def check_config_trusted(config: DictConfig, trust: bool, directory: Path) -> None:
    """Raise UserError if the composed command of a sweep names a class that thaw does not know, and `trust` is not set.

    Hydra calls what `_target_` names: launchers, sweepers, callbacks; and training imports the class of the optimizer.
    """
    hydra_values = OmegaConf.to_container(config.hydra, resolve=False)
    targets = [target for target in _iter_targets(hydra_values) if not target.startswith(TRUSTED_TARGETS)]
    optimizer = str(OmegaConf.select(config, "optimizer.name", default=""))
    names = [*targets, *([] if is_trusted_class(optimizer) else [optimizer])]
    if names:
        _raise_unless(trust, names, directory)


def _iter_targets(values: Any) -> Iterator[str]:
    if isinstance(values, dict):
        yield from (str(value) for key, value in values.items() if re.fullmatch("_target_", str(key)))
    if isinstance(values, dict | list):
        for value in values.values() if isinstance(values, dict) else values:
            yield from _iter_targets(value)


def _raise_unless(trust: bool, names: Sequence[str], directory: Path) -> None:
    if not trust:
        fix = f"thaw resume {shlex.quote(str(directory))} --trust, if you know where the sweep is from"
        problems = [Problem(name, "code of another package, which would be executed", fix=fix) for name in names]
        raise UserError("the sweep names code that thaw does not know.", problems)
