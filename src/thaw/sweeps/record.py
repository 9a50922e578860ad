"""The directory of a sweep: the command that started it, and its jobs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from thaw.config.compose import build_job_name
from thaw.config.errors import UserError
from thaw.config.renamed_keys import RENAMED_VALUES, find_new_key
from thaw.runs import SWEEP_FILE
from thaw.runs.environment import get_versions
from thaw.runs.reader import DAMAGED, read_json
from thaw.runs.run import FINISHED_STATUSES, Run, find_runs
from thaw.runs.schema import SweepEntries
from thaw.system.files import write_json
from thaw.system.portable import expand_home, shorten_home

# A path alone: neither a choice of several nor null, and no name of weights, which has no suffix and no slash.
PATH_OVERRIDE_PATTERN = re.compile(r"(\+{0,2}(?:dataset\.root|data\.cache_dir)=)(?!null$)([^~,(){}\[\]'\"$=]+)")
SPLITS_BY_SEED = "dataset.split_seed=${seed}"
MISSING = "missing"
JOB_NAME_PATTERN = re.compile(r"\d+_")


@dataclass(frozen=True)
class Sweep:
    """The record of a sweep. `arguments` are the words after `train.py`; `jobs` is the number of jobs, None if another
    sweeper than thaw's decides it."""

    arguments: tuple[str, ...]
    jobs: int | None


@dataclass(frozen=True)
class Job:
    """A job of a sweep. `status` is that of its run, `missing` if it has no run yet, or `damaged` if its record cannot
    be read. `error` is the last line of the error."""

    number: int
    name: str
    status: str
    error: str
    run: Run | None = None


@dataclass(frozen=True)
class SweepResult:
    """A sweep that has ended: its directory and jobs. A comparison takes it as it is."""

    directory: Path
    jobs: tuple[Job, ...]

    @property
    def runs(self) -> list[Run]:
        """The runs of the jobs, in the order of the jobs; a job that never started has none."""
        return [job.run for job in self.jobs if job.run is not None]

    @property
    def unfinished_jobs(self) -> list[Job]:
        """The jobs that failed, were interrupted or never started."""
        return select_unfinished_jobs(self.jobs)

    def __fspath__(self) -> str:
        return str(self.directory)

    def __repr__(self) -> str:
        num_finished = len(self.jobs) - len(self.unfinished_jobs)
        return f"SweepResult({str(self.directory)!r}, {num_finished} of {len(self.jobs)} jobs finished)"


def is_sweep(directory: Path) -> bool:
    """Return whether `directory` is that of a sweep."""
    return (directory / SWEEP_FILE).is_file()


def write_sweep(directory: Path, sweep: Sweep) -> None:
    """Write `sweep.json`. Paths in it are found from any working folder, and the home folder is `~`."""
    arguments = shorten_home(list(map(_make_portable, sweep.arguments)))
    write_json(directory / SWEEP_FILE, {"arguments": arguments, "jobs": sweep.jobs, "version": get_versions()["thaw"]})


def _make_portable(word: str) -> str:
    """Return a word of the command line; a relative path that is the whole value of a key becomes absolute."""
    match = PATH_OVERRIDE_PATTERN.fullmatch(word)
    return f"{match[1]}{Path(match[2]).absolute()}" if match and not Path(match[2]).is_absolute() else word


def read_sweep(directory: Path) -> Sweep:
    """Return the record of a sweep. Keys of version 0.1 in its command are renamed. Up to version 0.2 the seed of a job
    drew its splits; the jobs of such a sweep still have them.

    Raises:
        UserError: if `sweep.json` is missing or damaged.
    """
    content = read_json(directory / SWEEP_FILE, SweepEntries)
    arguments = [upgrade_override(expand_home(word)) for word in content["arguments"]]
    is_old = content.get("version") is None
    return Sweep((*arguments, *([SPLITS_BY_SEED] if is_old else [])), content["jobs"])


def upgrade_override(line: str) -> str:
    """Return an override, or another word of a command line, with the key and value of version 0.1 renamed."""
    key, equals, value = line.partition("=")
    prefix = key[: len(key) - len(key.lstrip("+~"))]
    new_key = find_new_key(key.removeprefix(prefix))
    if new_key is None:
        return line
    new_values = RENAMED_VALUES.get(new_key, {})
    choices = ",".join(new_values.get(choice, choice) for choice in value.split(","))
    return f"{prefix}{new_key}{equals}{choices}"


def upgrade_job_directories(directory: Path) -> None:
    """Rename the directories of jobs that version 0.1 named by keys that are renamed: a resumed sweep finds its runs by
    these names."""
    for run in find_job_runs(directory):
        number, _, job_name = run.name.partition("_")
        overrides = job_name.split(",")
        new_overrides = list(map(upgrade_override, overrides))
        if new_overrides != overrides:
            run.directory.rename(run.directory.with_name(f"{number}_{build_job_name(new_overrides, ())}"))


def read_jobs(directory: Path) -> list[Job]:
    """Return every job of the sweep in `directory` by number, also those without a run."""
    jobs_by_number = {job.number: job for job in map(_read_job, find_job_runs(directory))}
    numbers = sorted({*jobs_by_number, *range(read_sweep(directory).jobs or 0)})
    return [jobs_by_number.get(number) or Job(number, "", MISSING, "") for number in numbers]


def read_result(directory: Path) -> SweepResult:
    """Return the sweep in `directory` as it is now."""
    return SweepResult(directory, tuple(read_jobs(directory)))


def select_unfinished_jobs(jobs: Sequence[Job]) -> list[Job]:
    """Return the jobs that are neither done nor pruned."""
    return [job for job in jobs if job.status not in FINISHED_STATUSES]


def find_job_runs(directory: Path) -> list[Run]:
    """Return the runs of the jobs of a sweep; other runs may lie in its directory."""
    runs = [run for run in find_runs(directory) if run.directory.parent == directory]
    return [run for run in runs if JOB_NAME_PATTERN.match(run.name)]


def _read_job(run: Run) -> Job:
    number, _, name = run.name.partition("_")
    try:
        status, error = run.status, str(run.record.get("error", ""))
    except UserError as damage:
        status, error = DAMAGED, " ".join(map(str.strip, str(damage.problems[0]).splitlines()))
    lines = error.strip().splitlines()
    return Job(int(number), name, status, lines[-1].strip() if lines else "", run)
