"""The run directory: complete, self-describing, and claimed by one process at a time."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from thaw.config.errors import Problem, UserError, find_closest_name, format_names
from thaw.config.renamed_keys import upgrade_recipe
from thaw.config.schema import Recipe
from thaw.config.validation import validate_recipe
from thaw.system.files import write_json, write_text

RECORD_FILE = "run.json"
FINISHED_STATUSES = ("done", "pruned")  # what is not run again
RECORDED_PACKAGES = ("torch", "torchvision", "pytorch-lightning", "timm", "hydra-core", "numpy", "pillow")


class TrialPruned(Exception):
    """A search has stopped this run of its own; says when and why."""


@dataclass
class Run:
    """A run directory under way. `record` is the content of `run.json`, written at every change. `rank` counts the
    processes that train it together, of which the first alone writes."""

    directory: Path
    recipe: Recipe
    record: dict[str, Any] = field(default_factory=dict)
    rank: int = 0

    @property
    def best_checkpoint(self) -> Path:
        return self.directory / "checkpoints" / "best.ckpt"

    @property
    def last_checkpoint(self) -> Path:
        return self.directory / "checkpoints" / "last.ckpt"

    def update(self, **entries: Any) -> None:
        self.record.update(entries)
        if self.rank == 0:
            write_json(self.directory / RECORD_FILE, self.record)


def create_run(recipe: Recipe, directory: Path) -> Run:
    """Raises UserFault where `directory` holds a run already."""
    if (directory / "config.yaml").exists():
        fix = f"resume={directory}, or another hydra.run.dir"
        raise UserError("the run directory is taken.", [Problem(str(directory), "it holds a run", fix=fix)])
    for name in ("checkpoints", "plots", "tensorboard"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    write_text(directory / "config.yaml", yaml.safe_dump(recipe.to_dict(), sort_keys=False, allow_unicode=True))
    run = Run(directory, recipe)
    run.update(
        status="running",
        command=shlex.join(["python", *sys.argv]),
        seed=recipe.seed,
        started=_format_current_time(),
        versions={"python": sys.version.split()[0], **{name: version(name) for name in RECORDED_PACKAGES}},
        git=_get_git_revision(),
        **({"notes": recipe.notes} if recipe.notes else {}),
    )
    return run


def check_resumable(directory: Path) -> None:
    """Raises UserFault where there is no run in `directory`, or it has ended."""
    if not (directory / RECORD_FILE).is_file():
        run_names = sorted(file.parent.name for file in directory.parent.glob(f"*/{RECORD_FILE}"))
        closest_name = find_closest_name(directory.name, run_names)
        valid = f"a run directory; in {directory.parent} there is {format_names(run_names[-5:]) or 'none'}"
        fix = f"resume={directory.parent / closest_name}" if closest_name else ""
        raise UserError("no run to resume.", [Problem(f"resume={directory}", "no run.json in it", valid, fix)])
    if (status := _read_record(directory)["status"]) in FINISHED_STATUSES:
        problem = Problem(f"resume={directory}", f"this run is {status}", fix="start a new one")
        raise UserError("nothing to resume.", [problem])


def resume_run(directory: Path) -> Run:
    """The run in `directory`, to be continued. Raises UserFault where there is none, or it is done."""
    check_resumable(directory)
    run = open_run(directory, rank=0)
    run.update(status="running", resumed=[*run.record.get("resumed", []), _format_current_time()])
    return run


def open_run(directory: Path, rank: int) -> Run:
    """The run in `directory`, as it stands."""
    with (directory / "config.yaml").open(encoding="utf-8") as stream:
        recipe = validate_recipe(upgrade_recipe(yaml.safe_load(stream)))
    return Run(directory, recipe, _read_record(directory), rank)


def _read_record(directory: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((directory / RECORD_FILE).read_text(encoding="utf-8"))
    return content


def read_status(directory: Path) -> str | None:
    """Of the run in `directory`; None where there is none that could go on."""
    has_started = (directory / "config.yaml").is_file() and (directory / RECORD_FILE).is_file()
    return str(_read_record(directory)["status"]) if has_started else None


def record_failure(directory: Path, error: str) -> None:
    """Records `error` of a run that failed before it began; of another its own record speaks."""
    if read_status(directory) is None:
        write_json(directory / RECORD_FILE, {"status": "failed", "ended": _format_current_time(), "error": error})


@contextmanager
def lock_run(directory: Path) -> Iterator[None]:
    """Holds `directory` for this process; the operating system lets go of it however the process ends.

    Raises:
        UserFault: where another process trains in it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    file_descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(file_descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(file_descriptor)
        raise UserError("the run is under way.", [Problem(str(directory), "another process trains in it")]) from error
    try:
        yield
    finally:
        os.close(file_descriptor)


@contextmanager
def record_status(run: Run) -> Iterator[None]:
    """Writes how the run ended, whatever ends it, into `run.json`. To be pruned is no error."""
    try:
        yield
    except TrialPruned as reason:
        run.update(status="pruned", ended=_format_current_time(), pruned=str(reason))
        return
    except UserError as error:
        run.update(status="failed", ended=_format_current_time(), error=str(error))
        raise
    except Exception:
        run.update(status="failed", ended=_format_current_time(), error=traceback.format_exc())
        raise
    except BaseException:
        run.update(status="interrupted", ended=_format_current_time())
        raise
    run.update(status="done", ended=_format_current_time())


def _format_current_time() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def _get_git_revision() -> dict[str, Any] | None:
    """Commit, and whether tracked files differ from it; None outside a checkout."""
    source_directory = Path(__file__).parent
    try:
        commit = _run_git(source_directory, "rev-parse", "HEAD")
        return {
            "commit": commit,
            "changed": bool(_run_git(source_directory, "status", "--porcelain", "--untracked-files=no")),
        }
    except (OSError, subprocess.CalledProcessError):
        return None


def _run_git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
