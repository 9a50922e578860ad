"""The other processes of a run, which train together with the first and write nothing.

`python -m thaw.training.worker DIR` is a process that thaw has started. `run_worker` and `train_next_run` are for
processes that torchrun or srun has started.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

from thaw.config.errors import EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_SUCCESS, EXIT_USER_ERROR, UserError
from thaw.runs.lifecycle import TrialPruned
from thaw.runs.run import Run
from thaw.system.devices import resolve_accelerator
from thaw.system.process import Interrupted, raise_on_interrupt
from thaw.training.distributed.collectives import exit_with_parent, select_backend
from thaw.training.distributed.rendezvous import wait_for_run
from thaw.training.train import train


def main() -> int:
    """Train the run in the directory of the command line and return the exit status."""
    exit_with_parent()
    run = Run(Path(sys.argv[1]), rank=int(os.environ["LOCAL_RANK"]))
    return _convert_to_exit_status(lambda: _train_silently(run))


def run_worker() -> int | None:
    """Train the next run that the first process announces and return its exit status; None if there is none."""
    runs: list[Run | None] = []
    status = _convert_to_exit_status(lambda: runs.append(train_next_run()))
    return None if runs == [None] else status


def train_next_run() -> Run | None:
    """Train the next run that the first process announces; return None if there is none.

    Raises:
        UserError, Interrupted: as in the first process, which reports the error.
        RunFailedError: if the run failed in the first process.
    """
    announced_run = wait_for_run()
    if announced_run is None:
        return None
    backend = select_backend(resolve_accelerator(announced_run.run.recipe.trainer))
    try:
        with announced_run.join_process_group(backend):
            _train_silently(announced_run.run)
    except RuntimeError as error:
        if announced_run.is_over():
            raise RunFailedError("the run failed in the first process") from error
        raise
    return announced_run.run


class RunFailedError(Exception):
    """The run failed in the first process, which reports why."""


def _train_silently(run: Run) -> None:
    """Train without output: the first process reports. Libraries that print are silenced too."""
    with Path(os.devnull).open("w") as devnull, redirect_stdout(devnull), raise_on_interrupt():
        try:
            train(run)
        except TrialPruned:
            return


def _convert_to_exit_status(function: Callable[[], None]) -> int:
    """Call `function`. Errors that the first process reports are not shown; a bug raises."""
    try:
        function()
    except RunFailedError:
        return EXIT_FAILURE
    except UserError:
        return EXIT_USER_ERROR
    except Interrupted:
        return EXIT_INTERRUPTED
    return EXIT_SUCCESS


if __name__ == "__main__":
    sys.exit(main())
