"""The directory of a sweep: the command it was started by, and below it the directories of its jobs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from thaw.runs.run import FINISHED_STATUSES, Run, find_runs
from thaw.system.files import write_json

SWEEP_FILE = "sweep.json"


@dataclass(frozen=True)
class Sweep:
    """`arguments` is the command line behind `train.py`; `jobs` their number, None where a sweeper that is not thaw's
    decides it."""

    arguments: tuple[str, ...]
    jobs: int | None


@dataclass(frozen=True)
class Job:
    """`status` is that of its run; `missing` where there is no run yet. `error` is its last line."""

    number: int
    name: str
    status: str
    error: str


def is_sweep(directory: Path) -> bool:
    return (directory / SWEEP_FILE).is_file()


def write_sweep(directory: Path, sweep: Sweep) -> None:
    write_json(directory / SWEEP_FILE, asdict(sweep))


def read_sweep(directory: Path) -> Sweep:
    content = json.loads((directory / SWEEP_FILE).read_text(encoding="utf-8"))
    return Sweep(tuple(content["arguments"]), content["jobs"])


def read_jobs(directory: Path) -> list[Job]:
    """Every job of the sweep in `directory`, by number, those without a run too."""
    jobs_by_number = {job.number: job for job in map(_read_job, find_runs(directory))}
    numbers = sorted({*jobs_by_number, *range(read_sweep(directory).jobs or 0)})
    return [jobs_by_number.get(number) or Job(number, "", "missing", "") for number in numbers]


def select_unfinished_jobs(jobs: Sequence[Job]) -> list[Job]:
    return [job for job in jobs if job.status not in FINISHED_STATUSES]


def _read_job(run: Run) -> Job:
    number, _, name = run.name.partition("_")
    lines = str(run.record.get("error", "")).strip().splitlines()
    return Job(int(number), name, run.status, lines[-1].strip() if lines else "")
