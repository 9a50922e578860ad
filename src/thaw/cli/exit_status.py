"""The only place that prints errors and turns them into exit statuses."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable

from thaw.config.errors import EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_USER_ERROR, UserError


def run_command(command: Callable[[], int]) -> int:
    """Run `command` and return its exit status; print its error, if it raises one, on standard error.

    Statuses: 2 for a UserError, 130 for Ctrl-C and SIGTERM, 1 with a traceback for a bug in thaw.
    """
    try:
        return command()
    except UserError as error:
        print(f"thaw: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except Exception:
        traceback.print_exc()
        return EXIT_FAILURE
    except BaseException as error:
        if _is_interruption(error):
            return EXIT_INTERRUPTED
        raise


def _is_interruption(error: BaseException) -> bool:
    """`Interrupted` is looked up, not imported: its module imports torch, and raised it only if it is loaded."""
    process = sys.modules.get("thaw.system.process")
    return isinstance(error, KeyboardInterrupt) or (process is not None and isinstance(error, process.Interrupted))
