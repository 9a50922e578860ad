"""Report the jobs of a sweep that run in other processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from threading import Event, Thread

from omegaconf import DictConfig

from thaw.runs.run import FINISHED_STATUSES
from thaw.sweeps.launchers import OUTPUT_FILE, count_gpus, get_launcher_name, is_in_process_launcher
from thaw.sweeps.record import Job, read_jobs, read_sweep
from thaw.system.progress import ProgressTask
from thaw.system.reporter import Reporter

POLL_INTERVAL_S = 1.0
REPORTED_STATUSES = (*FINISHED_STATUSES, "failed", "interrupted")


@contextmanager
def monitor_jobs(config: DictConfig, directory: Path, reporter: Reporter) -> Iterator[ProgressTask]:
    """Show how many jobs of the sweep in `directory` are done, and log a line for each that ends, on whatever machine.
    Only the run directories are read.

    Jobs of this process are not watched: they write their own lines and count themselves with what is yielded.
    """
    if is_in_process_launcher(config.hydra.launcher):
        with _show_progress(directory, reporter) as count_job:
            yield count_job
        return
    with (
        reporter.keep_log() as log_reporter
    ):  # because some launchers run jobs, with redirected output, in this process
        _announce_jobs(config, directory, log_reporter)
        with _show_progress(directory, log_reporter) as count_job, _poll_jobs(directory, log_reporter, count_job):
            yield ProgressTask("sweep", 0, "jobs")  # for the launcher's processes, which show nothing


def _show_progress(directory: Path, reporter: Reporter) -> AbstractContextManager[ProgressTask]:
    num_finished = sum(job.status in FINISHED_STATUSES for job in read_jobs(directory))
    return reporter.progress("sweep", read_sweep(directory).jobs or 0, "jobs", num_finished)


def _announce_jobs(config: DictConfig, directory: Path, reporter: Reporter) -> None:
    num_jobs, threads = read_sweep(directory).jobs, config.trainer.threads
    reporter.log(f"{num_jobs or 'the'} jobs, by {config.hydra.runtime.choices['hydra/launcher']}; what they print:")
    reporter.log(f"  {directory}/*/{OUTPUT_FILE}")
    reporter.log(f"alone each is the same to the last bit with trainer.threads={threads or 'null'}")
    if num_parallel_jobs := _count_parallel_jobs(config, num_jobs):
        _warn_about_oversubscription(num_parallel_jobs, config, reporter)


def _count_parallel_jobs(config: DictConfig, num_jobs: int | None) -> int | None:
    """Return the largest number of jobs that run in parallel on this machine, or None if a scheduler decides it."""
    name, launcher = get_launcher_name(config.hydra.launcher), config.hydra.launcher
    if name == "JoblibLauncher":
        from joblib import effective_n_jobs

        max_jobs = int(effective_n_jobs(launcher.n_jobs))
        return min(max_jobs, num_jobs or max_jobs)
    return num_jobs if name == "LocalLauncher" else None


def _warn_about_oversubscription(num_parallel_jobs: int, config: DictConfig, reporter: Reporter) -> None:
    """Log a warning if there are more threads than cores: torch's threads wait for each other after each operation, and
    an epoch can take twenty times as long."""
    from thaw.system.process import available_cpus

    num_cpus = available_cpus()
    threads = config.trainer.threads or num_cpus
    if count_gpus(config.trainer.accelerator) == 0 and num_parallel_jobs * threads > num_cpus:
        reporter.log(
            f"slow: {num_parallel_jobs} jobs at once, with {threads} threads each, on {num_cpus} cores wait for each "
            f"other; launcher=joblib hydra.launcher.n_jobs={max(1, num_cpus // threads)} suits "
            f"trainer.threads={threads}"
        )


@contextmanager
def _poll_jobs(directory: Path, reporter: Reporter, count_job: ProgressTask) -> Iterator[None]:
    stop_event = Event()
    last_statuses = {job.number: job.status for job in read_jobs(directory)}

    def log_changes() -> None:
        for job in read_jobs(directory):
            if job.status in REPORTED_STATUSES and last_statuses.get(job.number) != job.status:
                reporter.log(_format_job_line(job, directory))
                count_job(1)
            last_statuses[job.number] = job.status

    def poll() -> None:
        while not stop_event.wait(POLL_INTERVAL_S):
            log_changes()

    thread = Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop_event.set()
        thread.join()
        log_changes()


def _format_job_line(job: Job, directory: Path) -> str:
    num_jobs = read_sweep(directory).jobs
    total = f" of {num_jobs}" if num_jobs else ""
    return f"job {job.number + 1}{total} {job.status}: {job.name}"
