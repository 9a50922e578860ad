"""A run from its directory to an exit status, with the processes that train it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from thaw.config.faults import DONE, FAULT, INTERRUPTED, UserFault
from thaw.config.schema import Recipe
from thaw.training.companion import follow
from thaw.training.hardware import accelerator_for, layout_of
from thaw.training.launched import is_further, launched
from thaw.training.nodes import opened
from thaw.training.process import Interrupted, interruptible
from thaw.training.ranks import backend, started
from thaw.training.run import Run, claimed, interrupted_run, new_run, recorded
from thaw.training.train import explaining, train


def start(recipe: Recipe, directory: Path) -> int:
    """Trains `recipe` in a new run directory and returns the exit status. Where an outside launcher has started several
    processes, the first one's recipe and directory count in all."""
    if is_further():
        return follow() or DONE
    return _to_its_end(directory, lambda: new_run(recipe, directory))


def resume(directory: Path) -> int:
    """Continues the run in `directory` from its last whole epoch and returns the exit status."""
    return _to_its_end(directory, lambda: interrupted_run(directory))


def _to_its_end(directory: Path, begun: Callable[[], Run]) -> int:
    try:
        with interruptible(), claimed(directory):
            run = begun()
            with recorded(run), _accompanied(run):
                explaining(train, run)
        if "pruned" in run.record:
            print(f"pruned: {run.record['pruned']}")
    except UserFault as fault:
        print(f"thaw: {fault}", file=sys.stderr)
        return FAULT
    except Interrupted:
        print(f"\ninterrupted; go on with: python train.py resume={directory}", file=sys.stderr)
        return INTERRUPTED
    return DONE


def _accompanied(run: Run) -> AbstractContextManager[None]:
    """Within, the other processes of the run train along."""
    trainer, here = run.recipe.trainer, launched()
    layout = layout_of(trainer)
    if here is None or here.world == 1:
        return started(run.directory, layout.processes)
    return opened(run, backend(accelerator_for(trainer)))
