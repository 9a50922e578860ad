"""A sweep from start to end, and one that is taken up again."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

from hydra._internal.callbacks import Callbacks
from hydra.core.plugins import Plugins
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from rich.console import Console

from thaw.config.compose import CheckedCommand, Command, check_command, parse_command, register_resolvers
from thaw.config.errors import EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_SUCCESS, UserError
from thaw.config.search_space import is_search
from thaw.runs.run import lock_run
from thaw.sweep.job import run_job
from thaw.sweep.launchers import Task
from thaw.sweep.monitor import monitor_jobs
from thaw.sweep.record import Sweep, is_sweep, read_jobs, read_sweep, select_unfinished_jobs, write_sweep
from thaw.sweep.resources import register_resource_resolvers
from thaw.sweep.search import run_search


def sweep(command: Command) -> int:
    """Runs every job of `command` and returns the exit status: 0, 1 where a job failed, 130 interrupted.

    Raises:
        UserFault: with all faults of all jobs, before any starts.
    """
    checked_command = check_command(command)
    return _run_sweep(checked_command, Path(checked_command.config.hydra.sweep.dir).absolute(), command.arguments)


def resume_sweep(directory: Path) -> int:
    """Runs what is missing of the sweep in `directory`, or failed, and goes on with what was interrupted.

    Raises:
        UserFault: where its command cannot be composed any more.
    """
    arguments = read_sweep(directory).arguments
    return _run_sweep(check_command(parse_command(arguments)), directory.absolute(), arguments)


def _run_sweep(checked_command: CheckedCommand, directory: Path, arguments: tuple[str, ...]) -> int:
    with lock_run(directory):
        if not is_sweep(directory):
            write_sweep(directory, Sweep(arguments, checked_command.num_jobs))
        try:
            _run_jobs(checked_command, directory)
        except KeyboardInterrupt:
            print(f"go on with the sweep: thaw resume {directory}", file=sys.stderr)
            return EXIT_INTERRUPTED
        except UserError:
            raise
        except Exception:  # of a launcher, whose process was killed for instance; of a job it is told already
            traceback.print_exc()
    return _report_sweep(directory)


def _run_jobs(checked_command: CheckedCommand, directory: Path) -> None:
    """As Hydra's own multirun does, in a directory that is known before, with a preset's values that were checked."""
    config = checked_command.config
    with read_write(config), open_dict(config):
        config.hydra.sweep.dir = str(directory)
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir='{directory}'")  # jobs compose by these
        if checked_command.num_jobs is not None:
            config.hydra.sweeper.params = None
    register_resolvers(checked_command.arguments)
    register_resource_resolvers()
    callbacks = Callbacks(config)
    callbacks.on_multirun_start(config=config, config_name=config.hydra.job.config_name)
    context = HydraContext(config_loader=checked_command.config_loader, callbacks=callbacks)
    task, overrides = (
        Task(run_job, tuple(checked_command.arguments), tuple(sys.argv)),
        _select_task_overrides(checked_command, config),
    )
    with monitor_jobs(config, directory):
        if is_search(config):
            run_search(config, context, task, overrides)
        else:
            sweeper = Plugins.instance().instantiate_sweeper(config=config, hydra_context=context, task_function=task)
            sweeper.sweep(arguments=overrides)
    callbacks.on_multirun_end(config=config, config_name=config.hydra.job.config_name)


def _select_task_overrides(checked_command: CheckedCommand, config: DictConfig) -> list[str]:
    hydra_overrides = set(OmegaConf.to_container(config.hydra.overrides.hydra) or [])
    return [override for override in checked_command.arguments if override not in hydra_overrides]


def _report_sweep(directory: Path) -> int:
    """Compares what is done, names what is not."""
    jobs = read_jobs(directory)
    unfinished_jobs = select_unfinished_jobs(jobs)
    if sum(job.status == "done" for job in jobs) > 1:
        from thaw.comparison.compare import compare
        from thaw.comparison.tables import print_comparison

        print_comparison(compare([directory], directory))
    console = Console(highlight=False, soft_wrap=True, stderr=True)
    for job in unfinished_jobs:
        console.print(f"job {job.number + 1} {job.status}: {job.name or 'never begun'}", style="bold", markup=False)
        if job.error:
            console.print(f"  {job.error}", markup=False)
    if unfinished_jobs:
        console.print(
            f"\n{len(unfinished_jobs)} of {len(jobs)} jobs are not done. To run these alone: thaw resume {directory}"
        )
    return EXIT_FAILURE if unfinished_jobs else EXIT_SUCCESS
