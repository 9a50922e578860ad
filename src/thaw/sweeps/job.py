"""One job of a sweep, in whatever process its launcher runs it."""

from __future__ import annotations

import traceback
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from thaw.config.compose import resolve_values
from thaw.config.errors import EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_SUCCESS, EXIT_USER_ERROR, UserError
from thaw.config.schema import Recipe
from thaw.config.validation import validate_recipe
from thaw.runs.lifecycle import check_trusted, record_failure
from thaw.runs.run import FINISHED_STATUSES, Run, read_status
from thaw.sweeps.launchers import OUTPUT_FILE, is_in_process_launcher, is_local_parallel_launcher, redirect_output
from thaw.sweeps.record import is_sweep, read_sweep
from thaw.system.portable import format_traceback, shorten_home
from thaw.system.progress import ProgressTask
from thaw.system.reporter import SILENT, ConsoleReporter, Reporter


@dataclass(frozen=True)
class JobRunner:
    """Trains one job. `command_line` is recorded in its `run.json`. `reporter` is used in the process of the sweep; in
    other processes a job always writes, into a file. `count_job` is called when a job of this process ends. A job that
    has started continues with the changes `overrides`. `trust` is whether the recipe was typed, and not read from a
    file that may be foreign."""

    command_line: str = ""
    reporter: Reporter = SILENT
    overrides: tuple[str, ...] = ()
    trust: bool = True
    count_job: ProgressTask = field(default_factory=lambda: ProgressTask("sweep", 0, "jobs"))

    def __call__(self, config: DictConfig) -> int:
        """Train the recipe of `config` and return the exit status; a job that fails does not stop the others.

        A run that is finished stays as it is and a started one continues. So a sweep is resumed by running all of its
        jobs again, and so is a job that a cluster has put back into its queue.

        Raises:
            KeyboardInterrupt: if the job is interrupted, which ends the sweep.
        """
        hydra_config = HydraConfig.get()
        directory = Path(hydra_config.runtime.output_dir)
        is_in_process = is_in_process_launcher(hydra_config.launcher)
        reporter = self.reporter if is_in_process else ConsoleReporter()
        was_finished = read_status(directory) in FINISHED_STATUSES
        with _redirect_job_output(directory, is_in_process):
            title = _format_title(directory, hydra_config.job.num)
            reporter.write(f"\n{title}: {directory.name.partition('_')[2]}")
            self.count_job(0, title)
            status = self._train_or_record_failure(config, directory, reporter)
            self.count_job(0 if was_finished else 1)
        if status == EXIT_INTERRUPTED:
            raise KeyboardInterrupt
        return status

    def _train_or_record_failure(self, config: DictConfig, directory: Path, reporter: Reporter) -> int:
        try:
            return self._train(config, directory, reporter)
        except UserError as error:
            reporter.log(f"thaw: {error}")
            record_failure(directory, shorten_home(str(error)))
            return EXIT_USER_ERROR
        except Exception:
            reporter.log(traceback.format_exc().rstrip())
            record_failure(directory, format_traceback())
            return EXIT_FAILURE

    def _train(self, config: DictConfig, directory: Path, reporter: Reporter) -> int:
        run = Run(directory)
        if run.exists and run.is_finished and not run.needs_evaluation:
            reporter.write(f"{run.status} before")
            return EXIT_SUCCESS
        recipe = validate_recipe(resolve_values(config))
        check_trusted(recipe, self.trust, f"thaw resume {directory.parent}")
        from thaw.system.devices import assign_gpus_from
        from thaw.system.process import Interrupted
        from thaw.training.start import resume_run, start_run

        try:
            with assign_gpus_from(_get_first_gpu(recipe)):
                if run.exists:
                    is_same_class = run.recipe.optimizer.name == recipe.optimizer.name
                    resume_run(
                        directory, self.overrides, command=self.command_line, trust=is_same_class, reporter=reporter
                    )
                else:
                    start_run(recipe, directory, command=self.command_line, reporter=reporter)
        except Interrupted:
            reporter.log(f"\ninterrupted; continue with: python train.py resume={directory}")
            return EXIT_INTERRUPTED
        return EXIT_SUCCESS


def _redirect_job_output(directory: Path, is_in_process: bool) -> AbstractContextManager[None]:
    """Redirect the output of jobs that run in parallel, whose lines would mix on a terminal."""
    return nullcontext() if is_in_process else redirect_output(directory / OUTPUT_FILE)


def _format_title(directory: Path, number: int) -> str:
    sweep = read_sweep(directory.parent) if is_sweep(directory.parent) else None
    total = f" of {sweep.jobs}" if sweep and sweep.jobs else ""
    return f"job {number + 1}{total}"


def _get_first_gpu(recipe: Recipe) -> int:
    """Return the first GPU of a job: parallel jobs on one machine take different ones."""
    hydra_config, devices = HydraConfig.get(), recipe.trainer.devices
    num_gpus = devices if isinstance(devices, int) else 1
    return hydra_config.job.num * num_gpus if is_local_parallel_launcher(hydra_config.launcher) else 0
