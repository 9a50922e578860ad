"""Runs that are killed in the middle of an epoch: by themselves, so that no test has to guess when that is."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from thaw.cli.train import launch
from thaw.training.module import ClassificationModule

PROCESSES = multiprocessing.get_context("forkserver")  # forked from one that has imported everything, once
PROCESSES.set_forkserver_preload(["thaw.cli.train", "thaw.training.start"])


def killed_in_epoch(epoch: int, arguments: Sequence[str], job: str = "") -> None:
    """Runs `python train.py ARGUMENTS` in a process that sends itself SIGKILL in the second batch of `epoch`, counted
    from 1, before the optimizer's step. Of several devices' processes the first does, of several jobs the first whose
    directory's name begins with `job`."""
    process = PROCESSES.Process(target=_launch_and_die, args=(epoch, list(arguments), job))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL, f"ended with {process.exitcode} before epoch {epoch} had two batches"


def _launch_and_die(epoch: int, arguments: list[str], job: str) -> None:
    step: Callable[..., Any] = ClassificationModule.training_step

    def last(learner: ClassificationModule, batch: Any, number: int) -> Any:
        loss = step(learner, batch, number)
        is_meant = Path(learner.trainer.default_root_dir).name.startswith(job)
        if is_meant and (learner.current_epoch + 1, number) == (epoch, 1):
            os.kill(os.getpid(), signal.SIGKILL)
        return loss

    ClassificationModule.training_step = last  # type: ignore[method-assign]
    launch(arguments)
