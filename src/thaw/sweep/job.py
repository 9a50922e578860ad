"""One job of a sweep, in whatever process its launcher runs it."""

from __future__ import annotations

import shlex
import sys
import traceback
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from thaw.config.compose import resolve_values
from thaw.config.errors import EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_SUCCESS, EXIT_USER_ERROR, UserError
from thaw.config.schema import Recipe
from thaw.config.validation import validate_recipe
from thaw.runs.run import FINISHED_STATUSES, read_status, record_failure
from thaw.sweep.launchers import OUTPUT_FILE, is_in_process_launcher, is_local_parallel_launcher, redirect_output
from thaw.sweep.record import is_sweep, read_sweep
from thaw.system.reporter import ConsoleReporter


def run_job(config: DictConfig) -> int:
    """Trains what `config` says and returns the exit status; a job that fails leaves the others to go on. What is done
    stays as it is and what was begun goes on, so a sweep is taken up again by running all of its jobs again, and a job
    that a cluster has put back into its queue by running it again.

    Raises:
        KeyboardInterrupt: where it was interrupted, which ends the sweep.
    """
    hydra_config = HydraConfig.get()
    directory = Path(hydra_config.runtime.output_dir)
    with _redirect_job_output(directory):
        print(_format_title(directory, hydra_config.job.num), flush=True)
        status = _train_or_record_failure(config, directory)
    if status == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    return status


def _redirect_job_output(directory: Path) -> AbstractContextManager[None]:
    """Jobs that run side by side would print into each other's lines."""
    return (
        nullcontext()
        if is_in_process_launcher(HydraConfig.get().launcher)
        else redirect_output(directory / OUTPUT_FILE)
    )


def _format_title(directory: Path, number: int) -> str:
    sweep = read_sweep(directory.parent) if is_sweep(directory.parent) else None
    total = f" of {sweep.jobs}" if sweep and sweep.jobs else ""
    return f"\njob {number + 1}{total}: {directory.name.partition('_')[2]}"


def _train_or_record_failure(config: DictConfig, directory: Path) -> int:
    try:
        return _train(config, directory)
    except UserError as error:
        print(f"thaw: {error}", file=sys.stderr)
        record_failure(directory, str(error))
        return EXIT_USER_ERROR
    except Exception:
        traceback.print_exc()
        record_failure(directory, traceback.format_exc())
        return EXIT_FAILURE


def _train(config: DictConfig, directory: Path) -> int:
    previous_status = read_status(directory)
    if previous_status in FINISHED_STATUSES:
        print(f"{previous_status} before")
        return EXIT_SUCCESS
    recipe = validate_recipe(resolve_values(config))
    from thaw.system.devices import assign_gpus_from
    from thaw.system.process import Interrupted
    from thaw.training.start import resume_run, start_run

    command, reporter = shlex.join(["python", *sys.argv]), ConsoleReporter()
    try:
        with assign_gpus_from(_get_first_gpu(recipe)):
            if previous_status:
                resume_run(directory, reporter=reporter)
            else:
                start_run(recipe, directory, command=command, reporter=reporter)
    except Interrupted:
        print(f"\ninterrupted; continue with: python train.py resume={directory}", file=sys.stderr)
        return EXIT_INTERRUPTED
    return EXIT_SUCCESS


def _get_first_gpu(recipe: Recipe) -> int:
    hydra_config, devices = HydraConfig.get(), recipe.trainer.devices
    return (
        hydra_config.job.num * (devices if isinstance(devices, int) else 1)
        if is_local_parallel_launcher(hydra_config.launcher)
        else 0
    )
