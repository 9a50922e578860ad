"""Helpers that several verbs share: recipes, names of new folders, interruption, and exit statuses."""

from __future__ import annotations

import os
import secrets
import select
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from thaw.config.errors import EXIT_BROKEN_PIPE, EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_USER_ERROR, UserError
from thaw.system.terminal import escape_output

if TYPE_CHECKING:
    from thaw.config.schema import Recipe

Result = TypeVar("Result")


def compose_recipe(overrides: Sequence[str], config_dir: Path | None) -> Recipe:
    """Return the recipe of `overrides`, with the user's presets in `config_dir`.

    Raises:
        UserError: with all problems.
    """
    from thaw.config import compose

    return compose.compose_recipe([*get_config_dir_arguments(config_dir), *overrides])


def get_config_dir_arguments(config_dir: Path | None) -> list[str]:
    """Return the words that name `config_dir` on the command line of train.py."""
    return ["--config-dir", str(config_dir)] if config_dir else []


def generate_output_path(recipe: Recipe, kind: str) -> Path:
    """Return a path in the recipe's output_dir that no other call returns."""
    return Path(recipe.output_dir).expanduser() / generate_unique_name(f"{kind}_{recipe.dataset.name}")


def generate_unique_name(stem: str) -> str:
    """Return `stem`, the time in seconds, and six random hexadecimal digits."""
    return f"{stem}_{time.strftime('%Y-%m-%d_%H-%M-%S')}_{secrets.token_hex(3)}"


def run_interruptible(function: Callable[[], Result]) -> Result:
    """Return `function()`; Ctrl-C and SIGTERM end it alike.

    Raises:
        Interrupted: if it was ended.
    """
    from thaw.system import process

    with process.raise_on_interrupt():
        return function()


def run_command(command: Callable[[], int]) -> int:
    """Run `command` and return its exit status; print its error, if it raises one, on standard error. Control
    characters in all that it prints are escaped.

    Statuses: 2 for a UserError, 130 for Ctrl-C and SIGTERM, 141 if nobody reads standard output any more, as for a
    program that SIGPIPE ends, 1 with a traceback for a bug in thaw.
    """
    with escape_output():
        try:
            status = command()
            sys.stdout.flush()
            return status
        except UserError as error:
            print(f"thaw: {error}", file=sys.stderr)
            return EXIT_USER_ERROR
        except BrokenPipeError:
            if _discard_closed_output():
                return EXIT_BROKEN_PIPE
            traceback.print_exc()
            return EXIT_FAILURE
        except Exception:
            traceback.print_exc()
            return EXIT_FAILURE
        except BaseException as error:
            if _is_interruption(error):
                return EXIT_INTERRUPTED
            raise


def _discard_closed_output() -> bool:
    """Return whether the reader of standard output is gone, as after `| head`; then discard what is still in memory, so
    that Python does not complain when it ends."""
    descriptor, poll = sys.stdout.fileno(), select.poll()
    poll.register(descriptor, select.POLLOUT)
    if not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    return True


def _is_interruption(error: BaseException) -> bool:
    """`Interrupted` is looked up, not imported: its module imports torch, and raised it only if it is loaded."""
    process = sys.modules.get("thaw.system.process")
    return isinstance(error, KeyboardInterrupt) or (process is not None and isinstance(error, process.Interrupted))
