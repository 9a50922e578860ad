"""What the terminal of a sweep tells while its jobs run elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import TextIO

from omegaconf import DictConfig

from thaw.sweep.directory import Job, jobs_in, read_sweep
from thaw.sweep.process import OUTPUT, STDERR, in_this_process, launcher_name
from thaw.sweep.share import gpus
from thaw.training.run import ENDED

SECONDS_BETWEEN_LOOKS = 1.0
TOLD = (*ENDED, "failed", "interrupted")


@contextmanager
def watched(config: DictConfig, directory: Path) -> Iterator[None]:
    """Within, a line for each job of the sweep in `directory` that ends, wherever it runs: what jobs note in their
    directories is all that is asked. Jobs of this process need none, they print themselves."""
    if in_this_process(config.hydra.launcher):
        yield
        return
    with os.fdopen(os.dup(STDERR), "w", buffering=1) as terminal:  # stays, whatever a job does to this process's own
        _announce(config, directory, terminal)
        with _looking(directory, terminal):
            yield


def _announce(config: DictConfig, directory: Path, terminal: TextIO) -> None:
    jobs, threads = read_sweep(directory).jobs, config.trainer.threads
    print(f"{jobs or 'the'} jobs, by {config.hydra.runtime.choices['hydra/launcher']}; what they print:", file=terminal)
    print(f"  {directory}/*/{OUTPUT}", file=terminal)
    print(f"alone each is the same to the last bit with trainer.threads={threads or 'null'}", file=terminal)
    if at_once := _at_once(config, jobs):
        _warn_of_crowds(at_once, config, terminal)


def _at_once(config: DictConfig, jobs: int | None) -> int | None:
    """Most jobs that run side by side on this machine; None where a scheduler looks after that."""
    name, launcher = launcher_name(config.hydra.launcher), config.hydra.launcher
    if name == "JoblibLauncher":
        from joblib import effective_n_jobs

        allowed = int(effective_n_jobs(launcher.n_jobs))
        return min(allowed, jobs or allowed)
    return jobs if name == "LocalLauncher" else None


def _warn_of_crowds(at_once: int, config: DictConfig, terminal: TextIO) -> None:
    """Threads of torch wait for each other at the end of each operation: with more of them than cores an epoch can take
    twenty times as long."""
    from thaw.training.process import cores

    threads = config.trainer.threads or cores()
    if gpus(config.trainer.accelerator) == 0 and at_once * threads > cores():
        print(
            f"slow: {at_once} jobs at once, with {threads} threads each, on {cores()} cores wait for each other; "
            f"launcher=joblib hydra.launcher.n_jobs={max(1, cores() // threads)} suits trainer.threads={threads}",
            file=terminal,
        )


@contextmanager
def _looking(directory: Path, terminal: TextIO) -> Iterator[None]:
    ended = Event()
    seen = {job.number: job.status for job in jobs_in(directory)}

    def look() -> None:
        for job in jobs_in(directory):
            if job.status in TOLD and seen.get(job.number) != job.status:
                print(_line(job, directory), file=terminal)
            seen[job.number] = job.status

    def look_on() -> None:
        while not ended.wait(SECONDS_BETWEEN_LOOKS):
            look()

    thread = Thread(target=look_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        look()


def _line(job: Job, directory: Path) -> str:
    jobs = read_sweep(directory).jobs
    of_all = f" of {jobs}" if jobs else ""
    return f"job {job.number + 1}{of_all} {job.status}: {job.name}"
