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

from thaw.config.faults import Fault, UserFault, listing, nearest
from thaw.config.schema import Recipe
from thaw.config.validation import validated
from thaw.training.files import write_json, write_text

RECORD = "run.json"
ENDED = ("done", "pruned")  # what is not run again
RECORDED_VERSIONS = ("torch", "torchvision", "pytorch-lightning", "timm", "hydra-core", "numpy", "pillow")


class Pruned(Exception):
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
    def best(self) -> Path:
        return self.directory / "checkpoints" / "best.ckpt"

    @property
    def last(self) -> Path:
        return self.directory / "checkpoints" / "last.ckpt"

    def note(self, **entries: Any) -> None:
        self.record.update(entries)
        if self.rank == 0:
            write_json(self.directory / RECORD, self.record)


def new_run(recipe: Recipe, directory: Path) -> Run:
    """Raises UserFault where `directory` holds a run already."""
    if (directory / "config.yaml").exists():
        fix = f"resume={directory}, or another hydra.run.dir"
        raise UserFault("the run directory is taken.", [Fault(str(directory), "it holds a run", fix=fix)])
    for name in ("checkpoints", "plots", "tensorboard"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    write_text(directory / "config.yaml", yaml.safe_dump(recipe.plain(), sort_keys=False, allow_unicode=True))
    run = Run(directory, recipe)
    run.note(
        status="running",
        command=shlex.join(["python", *sys.argv]),
        seed=recipe.seed,
        started=_now(),
        versions={"python": sys.version.split()[0], **{name: version(name) for name in RECORDED_VERSIONS}},
        git=_git_revision(),
        **({"notes": recipe.notes} if recipe.notes else {}),
    )
    return run


def check_resumable(directory: Path) -> None:
    """Raises UserFault where there is no run in `directory`, or it has ended."""
    if not (directory / RECORD).is_file():
        runs = sorted(file.parent.name for file in directory.parent.glob(f"*/{RECORD}"))
        near = nearest(directory.name, runs)
        valid = f"a run directory; in {directory.parent} there is {listing(runs[-5:]) or 'none'}"
        fix = f"resume={directory.parent / near}" if near else ""
        raise UserFault("no run to resume.", [Fault(f"resume={directory}", "no run.json in it", valid, fix)])
    if (status := _record(directory)["status"]) in ENDED:
        fault = Fault(f"resume={directory}", f"this run is {status}", fix="start a new one")
        raise UserFault("nothing to resume.", [fault])


def interrupted_run(directory: Path) -> Run:
    """The run in `directory`, to be continued. Raises UserFault where there is none, or it is done."""
    check_resumable(directory)
    run = joined_run(directory, rank=0)
    run.note(status="running", resumed=[*run.record.get("resumed", []), _now()])
    return run


def joined_run(directory: Path, rank: int) -> Run:
    """The run in `directory`, as it stands."""
    with (directory / "config.yaml").open(encoding="utf-8") as stream:
        recipe = validated(yaml.safe_load(stream))
    return Run(directory, recipe, _record(directory), rank)


def _record(directory: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((directory / RECORD).read_text(encoding="utf-8"))
    return content


def status_in(directory: Path) -> str | None:
    """Of the run in `directory`; None where there is none that could go on."""
    begun = (directory / "config.yaml").is_file() and (directory / RECORD).is_file()
    return str(_record(directory)["status"]) if begun else None


def note_failure(directory: Path, error: str) -> None:
    """Records `error` of a run that failed before it began; of another its own record speaks."""
    if status_in(directory) is None:
        write_json(directory / RECORD, {"status": "failed", "ended": _now(), "error": error})


@contextmanager
def claimed(directory: Path) -> Iterator[None]:
    """Holds `directory` for this process; the operating system lets go of it however the process ends.

    Raises:
        UserFault: where another process trains in it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise UserFault("the run is under way.", [Fault(str(directory), "another process trains in it")]) from error
    try:
        yield
    finally:
        os.close(handle)


@contextmanager
def recorded(run: Run) -> Iterator[None]:
    """Writes how the run ended, whatever ends it, into `run.json`. To be pruned is no error."""
    try:
        yield
    except Pruned as reason:
        run.note(status="pruned", ended=_now(), pruned=str(reason))
        return
    except UserFault as fault:
        run.note(status="failed", ended=_now(), error=str(fault))
        raise
    except Exception:
        run.note(status="failed", ended=_now(), error=traceback.format_exc())
        raise
    except BaseException:
        run.note(status="interrupted", ended=_now())
        raise
    run.note(status="done", ended=_now())


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def _git_revision() -> dict[str, Any] | None:
    """Commit, and whether tracked files differ from it; None outside a checkout."""
    source = Path(__file__).parent
    try:
        commit = _git(source, "rev-parse", "HEAD")
        return {"commit": commit, "changed": bool(_git(source, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
