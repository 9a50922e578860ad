"""What the commands of `thaw` have in common: their help, their verbs, their one recipe, their new folders."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from thaw.config.command import parsed, recipe_for
from thaw.config.faults import Fault, UserFault, listing, nearest
from thaw.config.schema import Recipe

Result = TypeVar("Result")


def asks_for_help(arguments: Sequence[str]) -> bool:
    """Whether `arguments` are none, or hold -h or --help."""
    return not arguments or not {"--help", "-h"}.isdisjoint(arguments)


def verb_of(command: str, arguments: Sequence[str], verbs: Iterable[str]) -> tuple[str, list[str]]:
    """The verb that comes first in `arguments`, and what follows it. `command` is as typed: thaw data.

    Raises:
        UserFault: where it is none of `verbs`.
    """
    verb, *rest = arguments
    valid = list(verbs)
    if verb not in valid:
        fix = f"{command} {nearest(verb, valid) or '--help'}"
        raise UserFault("no such verb.", [Fault(f"{command} {verb}", valid=listing(valid), fix=fix)])
    return verb, rest


def one_recipe(command: str, overrides: Sequence[str], of: str = "recipe", valid: str = "key=value") -> Recipe:
    """The recipe of `overrides`. `of` and `valid` are what a fault says that `command` looks at, and takes.

    Raises:
        UserFault: where they ask for a sweep or a printed config, or are wrong.
    """
    asked = parsed(overrides)
    if asked.multirun or asked.informs:
        options = listing(one for one in asked.arguments if one.startswith("-"))
        raise UserFault(f"{command} looks at one {of}.", [Fault(options, valid=valid)])
    return recipe_for(overrides)


def new_folder(recipe: Recipe, kind: str) -> Path:
    """A path in the recipe's output_dir that no other call names."""
    return Path(recipe.output_dir) / new_name(f"{kind}_{recipe.dataset.name}")


def new_name(stem: str) -> str:
    """`stem`, the second, and six digits drawn by chance."""
    return f"{stem}_{time.strftime('%Y-%m-%d_%H-%M-%S')}_{secrets.token_hex(3)}"


def number_of(text: str, kind: Callable[[str], float]) -> float:
    """nan where `text` is none of its kind, or without end."""
    try:
        number = kind(text)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def interruptible(function: Callable[[], Result]) -> Result:
    """`function()`, ended by Ctrl-C and SIGTERM alike.

    Raises:
        KeyboardInterrupt: where it was.
    """
    from thaw.training import process

    try:
        with process.interruptible():
            return function()
    except process.Interrupted:
        raise KeyboardInterrupt from None
