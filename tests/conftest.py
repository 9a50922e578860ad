"""Shared by all tests: a temporary cache, small recipes, and the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]

# A run of a second or two: four classes of generated characters, and a network that is fast at 32 pixels.
TINY = (
    "dataset.characters=ABCD",
    "dataset.train=9",
    "dataset.val=4",
    "dataset.test=5",
    "dataset.side=32",
    "dataset.image_size=32",
    "trainer.batch_size=8",
    "trainer.epochs=2",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",  # auto measures, and tests compare runs that measured at different times
    "trainer.threads=1",  # steps this small are slower on several threads
)


@pytest.fixture(scope="session", autouse=True)
def limit_threads() -> None:
    """Limit torch to one thread: tests run in one process per core, and more threads would wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def use_temporary_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Replace the user's cache by a temporary one."""
    cache = tmp_path_factory.mktemp("cache")
    previous = os.environ.get("THAW_CACHE")
    os.environ["THAW_CACHE"] = str(cache)
    yield cache
    if previous is None:
        del os.environ["THAW_CACHE"]
    else:
        os.environ["THAW_CACHE"] = previous


def build_train_command(*arguments: str) -> list[str]:
    """Return the command `python train.py ARGUMENTS` with this interpreter."""
    return [sys.executable, str(ROOT / "train.py"), *arguments]


def run_train_script(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run `python train.py ARGUMENTS` in a new process."""
    return subprocess.run(build_train_command(*arguments), cwd=cwd, capture_output=True, text=True, check=False)


def run_thaw(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run `thaw ARGUMENTS` in this process and return the exit status."""
    from thaw.cli.main import main

    return main(arguments)


def get_only_run(outputs: Path) -> Path:
    """Return the only run directory below `outputs`."""
    (record,) = outputs.rglob("run.json")
    return record.parent


@pytest.fixture(scope="session")
def short_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train one epoch, for the tests of the commands after a training; no test changes the run."""
    from thaw.cli.train import launch

    outputs = tmp_path_factory.mktemp("short_run")
    assert launch([*TINY, "trainer.epochs=1", f"output_dir={outputs}"]) == 0
    return get_only_run(outputs)
