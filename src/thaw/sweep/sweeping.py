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

from thaw.config.command import Checked, Command, checked, parsed, register_resolvers
from thaw.config.faults import DONE, FAILED, INTERRUPTED, UserFault
from thaw.config.search import is_search
from thaw.sweep.directory import Sweep, is_sweep, jobs_in, read_sweep, unfinished, write_sweep
from thaw.sweep.job import run_job
from thaw.sweep.process import Task
from thaw.sweep.search import search
from thaw.sweep.share import register_shares
from thaw.sweep.watching import watched
from thaw.training.run import claimed


def sweep(command: Command) -> int:
    """Runs every job of `command` and returns the exit status: 0, 1 where a job failed, 130 interrupted.

    Raises:
        UserFault: with all faults of all jobs, before any starts.
    """
    made = checked(command)
    return _to_its_end(made, Path(made.config.hydra.sweep.dir).absolute(), command.arguments)


def take_up(directory: Path) -> int:
    """Runs what is missing of the sweep in `directory`, or failed, and goes on with what was interrupted.

    Raises:
        UserFault: where its command cannot be composed any more.
    """
    arguments = read_sweep(directory).arguments
    return _to_its_end(checked(parsed(arguments)), directory.absolute(), arguments)


def _to_its_end(made: Checked, directory: Path, arguments: tuple[str, ...]) -> int:
    with claimed(directory):
        if not is_sweep(directory):
            write_sweep(directory, Sweep(arguments, made.jobs))
        try:
            _run(made, directory)
        except KeyboardInterrupt:
            print(f"go on with the sweep: thaw resume {directory}", file=sys.stderr)
            return INTERRUPTED
        except UserFault:
            raise
        except Exception:  # of a launcher, whose process was killed for instance; of a job it is told already
            traceback.print_exc()
    return _told(directory)


def _run(made: Checked, directory: Path) -> None:
    """As Hydra's own multirun does, in a directory that is known before, with a preset's values that were checked."""
    config = made.config
    with read_write(config), open_dict(config):
        config.hydra.sweep.dir = str(directory)
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir='{directory}'")  # jobs compose by these
        if made.jobs is not None:
            config.hydra.sweeper.params = None
    register_resolvers(made.arguments)
    register_shares()
    callbacks = Callbacks(config)
    callbacks.on_multirun_start(config=config, config_name=config.hydra.job.config_name)
    context = HydraContext(config_loader=made.loader, callbacks=callbacks)
    task, overrides = Task(run_job, tuple(made.arguments), tuple(sys.argv)), _task_overrides(made, config)
    with watched(config, directory):
        if is_search(config):
            search(config, context, task, overrides)
        else:
            sweeper = Plugins.instance().instantiate_sweeper(config=config, hydra_context=context, task_function=task)
            sweeper.sweep(arguments=overrides)
    callbacks.on_multirun_end(config=config, config_name=config.hydra.job.config_name)


def _task_overrides(made: Checked, config: DictConfig) -> list[str]:
    hydras = set(OmegaConf.to_container(config.hydra.overrides.hydra) or [])
    return [line for line in made.arguments if line not in hydras]


def _told(directory: Path) -> int:
    """Compares what is done, names what is not."""
    jobs = jobs_in(directory)
    left = unfinished(jobs)
    if sum(job.status == "done" for job in jobs) > 1:
        from thaw.comparison.build import compare
        from thaw.comparison.terminal import print_comparison

        print_comparison(compare([directory], directory))
    console = Console(highlight=False, soft_wrap=True, stderr=True)
    for job in left:
        console.print(f"job {job.number + 1} {job.status}: {job.name or 'never begun'}", style="bold", markup=False)
        if job.error:
            console.print(f"  {job.error}", markup=False)
    if left:
        console.print(f"\n{len(left)} of {len(jobs)} jobs are not done. To run these alone: thaw resume {directory}")
    return FAILED if left else DONE
