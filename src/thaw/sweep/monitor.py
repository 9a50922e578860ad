"""What the terminal of a sweep tells while its jobs run elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import TextIO

from omegaconf import DictConfig

from thaw.runs.run import FINISHED_STATUSES
from thaw.sweep.launchers import OUTPUT_FILE, STDERR, get_launcher_name, is_in_process_launcher
from thaw.sweep.record import Job, read_jobs, read_sweep
from thaw.sweep.resources import count_gpus

POLL_INTERVAL_S = 1.0
REPORTED_STATUSES = (*FINISHED_STATUSES, "failed", "interrupted")


@contextmanager
def monitor_jobs(config: DictConfig, directory: Path) -> Iterator[None]:
    """Within, a line for each job of the sweep in `directory` that ends, wherever it runs: what jobs note in their
    directories is all that is asked. Jobs of this process need none, they print themselves."""
    if is_in_process_launcher(config.hydra.launcher):
        yield
        return
    with os.fdopen(os.dup(STDERR), "w", buffering=1) as terminal:  # stays, whatever a job does to this process's own
        _announce(config, directory, terminal)
        with _poll_jobs(directory, terminal):
            yield


def _announce(config: DictConfig, directory: Path, terminal: TextIO) -> None:
    num_jobs, threads = read_sweep(directory).jobs, config.trainer.threads
    print(
        f"{num_jobs or 'the'} jobs, by {config.hydra.runtime.choices['hydra/launcher']}; what they print:",
        file=terminal,
    )
    print(f"  {directory}/*/{OUTPUT_FILE}", file=terminal)
    print(f"alone each is the same to the last bit with trainer.threads={threads or 'null'}", file=terminal)
    if num_parallel_jobs := _count_parallel_jobs(config, num_jobs):
        _warn_about_oversubscription(num_parallel_jobs, config, terminal)


def _count_parallel_jobs(config: DictConfig, num_jobs: int | None) -> int | None:
    """Most jobs that run side by side on this machine; None where a scheduler looks after that."""
    name, launcher = get_launcher_name(config.hydra.launcher), config.hydra.launcher
    if name == "JoblibLauncher":
        from joblib import effective_n_jobs

        max_jobs = int(effective_n_jobs(launcher.n_jobs))
        return min(max_jobs, num_jobs or max_jobs)
    return num_jobs if name == "LocalLauncher" else None


def _warn_about_oversubscription(num_parallel_jobs: int, config: DictConfig, terminal: TextIO) -> None:
    """Threads of torch wait for each other at the end of each operation: with more of them than cores an epoch can take
    twenty times as long."""
    from thaw.system.process import available_cpus

    threads = config.trainer.threads or available_cpus()
    if count_gpus(config.trainer.accelerator) == 0 and num_parallel_jobs * threads > available_cpus():
        print(
            f"slow: {num_parallel_jobs} jobs at once, with {threads} threads each, on {available_cpus()} cores wait for each other; "
            f"launcher=joblib hydra.launcher.n_jobs={max(1, available_cpus() // threads)} suits trainer.threads={threads}",
            file=terminal,
        )


@contextmanager
def _poll_jobs(directory: Path, terminal: TextIO) -> Iterator[None]:
    stop_event = Event()
    last_statuses = {job.number: job.status for job in read_jobs(directory)}

    def print_changes() -> None:
        for job in read_jobs(directory):
            if job.status in REPORTED_STATUSES and last_statuses.get(job.number) != job.status:
                print(_format_job_line(job, directory), file=terminal)
            last_statuses[job.number] = job.status

    def poll() -> None:
        while not stop_event.wait(POLL_INTERVAL_S):
            print_changes()

    thread = Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop_event.set()
        thread.join()
        print_changes()


def _format_job_line(job: Job, directory: Path) -> str:
    num_jobs = read_sweep(directory).jobs
    total = f" of {num_jobs}" if num_jobs else ""
    return f"job {job.number + 1}{total} {job.status}: {job.name}"
