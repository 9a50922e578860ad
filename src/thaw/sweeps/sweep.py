"""Run a sweep, or resume one."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hydra._internal.callbacks import Callbacks
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.core.plugins import Plugins
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from thaw.config.compose import CheckedCommand, Command, check_command, parse_command, register_resolvers
from thaw.config.errors import UserError
from thaw.config.search_space import is_search
from thaw.runs.environment import lock_run
from thaw.runs.lifecycle import create_directory, explain_write_errors
from thaw.sweeps.job import JobRunner
from thaw.sweeps.launchers import Task, register_resource_resolvers
from thaw.sweeps.monitor import monitor_jobs
from thaw.sweeps.record import (
    Sweep,
    SweepResult,
    is_sweep,
    read_result,
    read_sweep,
    upgrade_job_directories,
    write_sweep,
)
from thaw.sweeps.resume import check_config_trusted, check_words_trusted, replace_overrides
from thaw.sweeps.search import run_search
from thaw.system.reporter import SILENT, Reporter


def sweep(command: Command, *, command_line: str = "", reporter: Reporter = SILENT) -> SweepResult:
    """Run every job of `command` and compare the runs. `command_line` is what the runs record as their command. A job
    that fails does not stop the others: see `SweepResult.unfinished_jobs`.

    Raises:
        UserError: with all problems of all jobs, before any starts.
        KeyboardInterrupt: if a job is interrupted; `resume_sweep` continues.
    """
    checked_command = check_command(command)
    directory = Path(checked_command.config.hydra.sweep.dir).expanduser().absolute()
    with create_directory(directory):
        return _run_sweep(checked_command, directory, command.arguments, JobRunner(command_line, reporter))


def resume_sweep(
    directory: Path,
    overrides: Sequence[str] = (),
    *,
    command_line: str = "",
    trust: bool = False,
    reporter: Reporter = SILENT,
) -> SweepResult:
    """Run the jobs of the sweep in `directory` that failed or are missing, and continue those that were interrupted.

    `overrides` say for all jobs where data and weights are, or on which hardware they train. `trust` allows classes
    that the sweep names and thaw does not know; they are imported.

    Raises:
        UserError: if its command is damaged, no longer valid, or names such a class without `trust`.
        KeyboardInterrupt: if a job is interrupted.
    """
    directory = directory.absolute()
    arguments = replace_overrides(read_sweep(directory).arguments, overrides)
    check_words_trusted(arguments, trust, directory)
    checked_command = check_command(parse_command(arguments))
    check_config_trusted(checked_command.config, trust, directory)
    upgrade_job_directories(directory)
    if overrides:
        write_sweep(directory, Sweep(arguments, checked_command.num_jobs))
    runner = JobRunner(command_line, reporter, tuple(overrides), trust)
    return _run_sweep(checked_command, directory, arguments, runner)


def _run_sweep(
    checked_command: CheckedCommand, directory: Path, arguments: tuple[str, ...], runner: JobRunner
) -> SweepResult:
    reporter = runner.reporter
    with lock_run(directory), explain_write_errors(directory, f"thaw resume {directory}"):
        if not is_sweep(directory):
            write_sweep(directory, Sweep(arguments, checked_command.num_jobs))
        try:
            _run_jobs(checked_command, directory, runner)
        except KeyboardInterrupt:
            reporter.log(f"go on with the sweep: thaw resume {directory}")
            raise
        except (UserError, OSError):
            raise
        except Exception:  # from a launcher, for instance if its process was killed; jobs record their own errors
            reporter.log(traceback.format_exc().rstrip())
    result = read_result(directory)
    _report_result(result, reporter)
    return result


def _run_jobs(checked_command: CheckedCommand, directory: Path, runner: JobRunner) -> None:
    """Do what Hydra's multirun does, in a directory that is known before and with the checked values of a preset."""
    config, reporter = checked_command.config, runner.reporter
    with read_write(config), open_dict(config):
        config.hydra.sweep.dir = str(directory)
        quoted_directory = QuotedString(str(directory), Quote.single).with_quotes()
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quoted_directory}")  # jobs are composed from these
        if checked_command.num_jobs is not None:
            config.hydra.sweeper.params = None
    register_resolvers(checked_command.arguments)
    register_resource_resolvers()
    callbacks = Callbacks(config)
    callbacks.on_multirun_start(config=config, config_name=config.hydra.job.config_name)
    context = HydraContext(config_loader=checked_command.config_loader, callbacks=callbacks)
    overrides = _select_task_overrides(checked_command, config)
    with monitor_jobs(config, directory, reporter) as count_job:
        task = Task(replace(runner, count_job=count_job), tuple(checked_command.arguments))
        if is_search(config):
            from thaw.sweeps.search_report import report_search  # imports matplotlib

            report_search(*run_search(config, context, task, overrides), reporter)
        else:
            sweeper = Plugins.instance().instantiate_sweeper(config=config, hydra_context=context, task_function=task)
            if isinstance(sweeper, BasicSweeper):  # would compose every job once more before the first starts
                setattr(sweeper, "validate_batch_is_legal", _accept_batch)  # noqa: B010  # mypy allows no assignment
            sweeper.sweep(arguments=overrides)
    callbacks.on_multirun_end(config=config, config_name=config.hydra.job.config_name)


def _accept_batch(batch: Sequence[Sequence[str]]) -> None:
    """Accept the jobs of a `batch`: `check_command` has checked all."""


def _select_task_overrides(checked_command: CheckedCommand, config: DictConfig) -> list[str]:
    hydra_overrides = set(OmegaConf.to_container(config.hydra.overrides.hydra) or [])
    return [override for override in checked_command.arguments if override not in hydra_overrides]


def _report_result(result: SweepResult, reporter: Reporter) -> None:
    """Compare the runs that are done, name the jobs that are not, and end with what won."""
    verdicts: list[str] = []
    if sum(job.status == "done" for job in result.jobs) > 1:
        from thaw.comparison.comparison import compare

        verdicts = compare(result.directory, result.directory, reporter).verdicts
    for job in result.unfinished_jobs:
        reporter.log(f"job {job.number + 1} {job.status}: {job.name or 'never started'}")
        if job.error:
            reporter.log(f"  {job.error}")
    if result.unfinished_jobs:
        counts = f"{len(result.unfinished_jobs)} of {len(result.jobs)} jobs are not done"
        reporter.log(f"\n{counts}. To run these alone: thaw resume {result.directory}")
    for verdict in verdicts:
        reporter.write(f"\n{verdict}", "bold")
