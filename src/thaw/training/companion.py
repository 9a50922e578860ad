"""The further processes of a run. `python -m thaw.training.companion DIR` is one that thaw has started itself, `follow`
trains in one that torchrun or srun has started."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

from thaw.config.faults import DONE, FAILED, FAULT, INTERRUPTED, UserFault
from thaw.training.hardware import accelerator_for
from thaw.training.nodes import next_opened
from thaw.training.process import Interrupted, interruptible
from thaw.training.ranks import backend, end_with_the_first_process
from thaw.training.run import Pruned, Run, joined_run
from thaw.training.train import train


def main() -> int:
    end_with_the_first_process()
    return _status(joined_run(Path(sys.argv[1]), rank=int(os.environ["LOCAL_RANK"])))


def follow() -> int | None:
    """Trains the next run that the first process opens, and returns its exit status; None where there is none."""
    opened = next_opened()
    if opened is None:
        return None
    exchange = backend(accelerator_for(opened.run.recipe.trainer))
    try:
        with opened.joined(exchange):
            return _status(opened.run)
    except RuntimeError:
        if opened.is_over():
            return FAILED
        raise


def _status(run: Run) -> int:
    """The first process tells what the user is to know; a bug leaves its traceback here."""
    with _silent(), interruptible():
        try:
            train(run)
        except Pruned:
            return DONE
        except UserFault:
            return FAULT
        except Interrupted:
            return INTERRUPTED
    return DONE


@contextmanager
def _silent() -> Iterator[None]:
    with Path(os.devnull).open("w") as nothing, redirect_stdout(nothing):
        yield


if __name__ == "__main__":
    sys.exit(main())
