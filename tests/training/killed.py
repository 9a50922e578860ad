"""Runs that kill themselves in the middle of an epoch, so that no test has to guess when that is."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from thaw.cli.train import launch
from thaw.data.batches import Batch
from thaw.system import files
from thaw.training.module import ClassificationModule

PROCESSES = multiprocessing.get_context("forkserver")  # forked from one that has imported everything, once
PROCESSES.set_forkserver_preload(["thaw.cli.train", "thaw.training.start"])


def kill_in_epoch(epoch: int, arguments: Sequence[str], job: str = "") -> None:
    """Run `python train.py ARGUMENTS` in a process that kills itself in the second batch of `epoch`, counted from 1.

    That is before the optimizer step. If there are several devices, the first process does; if there are several jobs,
    the first job whose directory name starts with `job`.
    """
    process = PROCESSES.Process(target=_launch_and_die, args=(epoch, list(arguments), job))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL, f"ended with {process.exitcode} before epoch {epoch} had two batches"


def _launch_and_die(epoch: int, arguments: list[str], job: str) -> None:
    compute_loss: Callable[..., Any] = ClassificationModule.compute_training_loss

    def compute_or_die(module: ClassificationModule, batch: Batch) -> Any:
        loss = compute_loss(module, batch)
        is_target_job = Path(module.trainer.default_root_dir).name.startswith(job)
        if is_target_job and (module.current_epoch + 1, module.batch_idx) == (epoch, 1):
            os.kill(os.getpid(), signal.SIGKILL)
        return loss

    ClassificationModule.compute_training_loss = compute_or_die  # type: ignore[method-assign]
    launch(arguments)


def kill_before_write(name: str, arguments: Sequence[str], job: str = "") -> None:
    """Run `python train.py ARGUMENTS` in a process that kills itself before it writes the first file `name`. If there
    are several jobs, the first job whose directory name starts with `job` does."""
    process = PROCESSES.Process(target=_launch_and_die_before_write, args=(name, list(arguments), job))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL, f"ended with {process.exitcode} before {name} was written"


def _launch_and_die_before_write(name: str, arguments: list[str], job: str) -> None:
    write: Callable[..., None] = files.write_atomically

    def write_or_die(file: Path, *rest: Any) -> None:
        if file.name == name and file.parent.name.startswith(job):
            os.kill(os.getpid(), signal.SIGKILL)
        write(file, *rest)

    files.write_atomically = write_or_die
    launch(arguments)
