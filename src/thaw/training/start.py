"""A run from its directory to an exit status, with the processes that train it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from thaw.config.errors import EXIT_INTERRUPTED, EXIT_SUCCESS, EXIT_USER_ERROR, UserError
from thaw.config.schema import Recipe
from thaw.runs.run import Run, create_run, lock_run, record_status, resume_run
from thaw.system.devices import resolve_accelerator, resolve_process_topology
from thaw.system.launcher import detect_launcher, is_worker
from thaw.system.process import Interrupted, raise_on_interrupt
from thaw.training.distributed.collectives import select_backend, spawn_workers
from thaw.training.distributed.rendezvous import announce_run
from thaw.training.train import call_with_error_hints, train
from thaw.training.worker import run_worker


def start(recipe: Recipe, directory: Path, command: str = "") -> int:
    """Trains `recipe` in a new run directory and returns the exit status. Where an outside launcher has started several
    processes, the first one's recipe and directory count in all."""
    if is_worker():
        return run_worker() or EXIT_SUCCESS
    return _run_to_completion(directory, lambda: create_run(recipe, directory, command))


def resume(directory: Path) -> int:
    """Continues the run in `directory` from its last whole epoch and returns the exit status."""
    return _run_to_completion(directory, lambda: resume_run(directory))


def _run_to_completion(directory: Path, run_factory: Callable[[], Run]) -> int:
    try:
        with raise_on_interrupt(), lock_run(directory):
            run = run_factory()
            with record_status(run), _launch_processes(run):
                call_with_error_hints(train, run)
        if "pruned" in run.record:
            print(f"pruned: {run.record['pruned']}")
    except UserError as error:
        print(f"thaw: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except Interrupted:
        print(f"\ninterrupted; go on with: python train.py resume={directory}", file=sys.stderr)
        return EXIT_INTERRUPTED
    return EXIT_SUCCESS


def _launch_processes(run: Run) -> AbstractContextManager[None]:
    """Within, the other processes of the run train along."""
    trainer, launch_info = run.recipe.trainer, detect_launcher()
    topology = resolve_process_topology(trainer)
    if launch_info is None or launch_info.world_size == 1:
        return spawn_workers(run.directory, topology.world_size)
    return announce_run(run, select_backend(resolve_accelerator(trainer)))
