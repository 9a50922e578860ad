"""One job of a sweep, in whatever process its launcher runs it."""

from __future__ import annotations

import sys
import traceback
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from thaw.config.command import values_of
from thaw.config.faults import DONE, FAILED, FAULT, INTERRUPTED, UserFault
from thaw.config.schema import Recipe
from thaw.config.validation import validated
from thaw.sweep.directory import is_sweep, read_sweep
from thaw.sweep.process import OUTPUT, in_this_process, output_to, shares_its_machine
from thaw.training.run import ENDED, note_failure, status_in


def run_job(config: DictConfig) -> int:
    """Trains what `config` says and returns the exit status; a job that fails leaves the others to go on. What is done
    stays as it is and what was begun goes on, so a sweep is taken up again by running all of its jobs again, and a job
    that a cluster has put back into its queue by running it again.

    Raises:
        KeyboardInterrupt: where it was interrupted, which ends the sweep.
    """
    job = HydraConfig.get()
    directory = Path(job.runtime.output_dir)
    with _output_of(directory):
        print(_title(directory, job.job.num), flush=True)
        status = _status(config, directory)
    if status == INTERRUPTED:
        raise KeyboardInterrupt
    return status


def _output_of(directory: Path) -> AbstractContextManager[None]:
    """Jobs that run side by side would print into each other's lines."""
    return nullcontext() if in_this_process(HydraConfig.get().launcher) else output_to(directory / OUTPUT)


def _title(directory: Path, number: int) -> str:
    sweep = read_sweep(directory.parent) if is_sweep(directory.parent) else None
    of_all = f" of {sweep.jobs}" if sweep and sweep.jobs else ""
    return f"\njob {number + 1}{of_all}: {directory.name.partition('_')[2]}"


def _status(config: DictConfig, directory: Path) -> int:
    try:
        return _trained(config, directory)
    except UserFault as fault:
        print(f"thaw: {fault}", file=sys.stderr)
        note_failure(directory, str(fault))
        return FAULT
    except Exception:
        traceback.print_exc()
        note_failure(directory, traceback.format_exc())
        return FAILED


def _trained(config: DictConfig, directory: Path) -> int:
    before = status_in(directory)
    if before in ENDED:
        print(f"{before} before")
        return DONE
    recipe = validated(values_of(config))
    from thaw.training.hardware import beginning_with
    from thaw.training.start import resume, start

    with beginning_with(_first_gpu(recipe)):
        return resume(directory) if before else start(recipe, directory)


def _first_gpu(recipe: Recipe) -> int:
    job, devices = HydraConfig.get(), recipe.trainer.devices
    return job.job.num * (devices if isinstance(devices, int) else 1) if shares_its_machine(job.launcher) else 0
