"""The further processes of a run. `python -m thaw.training.worker DIR` is one that thaw has started itself, `follow`
trains in one that torchrun or srun has started."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

from thaw.config.errors import EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_SUCCESS, EXIT_USER_ERROR, UserError
from thaw.runs.run import Run, TrialPruned
from thaw.system.devices import resolve_accelerator
from thaw.system.process import Interrupted, raise_on_interrupt
from thaw.training.distributed.collectives import exit_with_parent, select_backend
from thaw.training.distributed.rendezvous import wait_for_run
from thaw.training.train import train


def main() -> int:
    exit_with_parent()
    return _train_silently(Run(Path(sys.argv[1]), rank=int(os.environ["LOCAL_RANK"])))


def run_worker() -> int | None:
    """Trains the next run that the first process opens, and returns its exit status; None where there is none."""
    announced_run = wait_for_run()
    if announced_run is None:
        return None
    backend_name = select_backend(resolve_accelerator(announced_run.run.recipe.trainer))
    try:
        with announced_run.join_process_group(backend_name):
            return _train_silently(announced_run.run)
    except RuntimeError:
        if announced_run.is_over():
            return EXIT_FAILURE
        raise


def _train_silently(run: Run) -> int:
    """The first process tells what the user is to know; a bug leaves its traceback here."""
    with _suppress_stdout(), raise_on_interrupt():
        try:
            train(run)
        except TrialPruned:
            return EXIT_SUCCESS
        except UserError:
            return EXIT_USER_ERROR
        except Interrupted:
            return EXIT_INTERRUPTED
    return EXIT_SUCCESS


@contextmanager
def _suppress_stdout() -> Iterator[None]:
    with Path(os.devnull).open("w") as devnull, redirect_stdout(devnull):
        yield


if __name__ == "__main__":
    sys.exit(main())
