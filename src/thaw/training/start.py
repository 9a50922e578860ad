"""Start or resume a run: its directory, its lock, its processes, and how it ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from thaw.config.schema import Recipe
from thaw.runs.environment import lock_run
from thaw.runs.lifecycle import create_directory, create_run, explain_write_errors, record_status
from thaw.runs.lifecycle import resume_run as open_resumable_run
from thaw.runs.run import Run
from thaw.system.devices import resolve_accelerator, resolve_process_topology
from thaw.system.launcher import detect_launcher, is_worker
from thaw.system.process import raise_on_interrupt
from thaw.system.reporter import SILENT, Reporter
from thaw.training.distributed.collectives import select_backend, spawn_workers
from thaw.training.distributed.rendezvous import announce_run
from thaw.training.train import explain_resource_errors, train
from thaw.training.worker import train_next_run


def start_run(recipe: Recipe, directory: Path, *, command: str = "", reporter: Reporter = SILENT) -> Run:
    """Train `recipe` in a new run directory. `command` is recorded in `run.json`.

    If an outside launcher has started several processes, recipe and directory of the first apply to all of them.

    Raises:
        UserError: if the recipe cannot be trained here, or the directory holds a run.
        Interrupted: on Ctrl-C or SIGTERM; `resume_run` continues the run.
    """
    if is_worker():
        return train_next_run() or Run(directory, recipe)
    return _run_to_completion(directory, lambda: create_run(recipe, directory, command), reporter)


def resume_run(
    directory: Path,
    overrides: Sequence[str] = (),
    *,
    command: str = "",
    trust: bool = False,
    reporter: Reporter = SILENT,
) -> Run:
    """Continue the run in `directory` from its last complete epoch. `thaw.runs.lifecycle.resume_run` describes the
    arguments.

    Raises:
        UserError: if there is no run, it has finished, or it cannot be trained here.
        Interrupted: on Ctrl-C or SIGTERM.
    """
    return _run_to_completion(directory, lambda: open_resumable_run(directory, overrides, command, trust), reporter)


def _run_to_completion(directory: Path, open_run: Callable[[], Run], reporter: Reporter) -> Run:
    full_disk_fix = f"resume={directory}"
    with (
        raise_on_interrupt(),
        create_directory(directory),
        lock_run(directory),
        explain_write_errors(directory, full_disk_fix),
    ):
        run = open_run()
        with record_status(run), _launch_processes(run), explain_resource_errors(run):
            train(run, reporter)
    if "pruned" in run.record:
        reporter.write(f"pruned: {run.record['pruned']}")
    return run


def _launch_processes(run: Run) -> AbstractContextManager[None]:
    """Start the other processes of the run, or let those of an outside launcher join it, for a context."""
    trainer, launcher = run.recipe.trainer, detect_launcher()
    topology = resolve_process_topology(trainer)
    if launcher is None or launcher.world_size == 1:
        return spawn_workers(run.directory, topology.world_size)
    return announce_run(run, select_backend(resolve_accelerator(trainer)))
