"""Share with all tests: a separate cache, a small recipe, and the commands as a user types them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]

# A run of one or two seconds: four classes of drawn characters at 32 pixels.
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
    "trainer.threads=1",  # more threads make such small steps slower
)


@pytest.fixture(scope="session", autouse=True)
def one_thread_each() -> None:
    """Limit torch to one thread, because tests run in parallel, one process per core."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Use a temporary cache folder instead of the user's."""
    cache = tmp_path_factory.mktemp("cache")
    before = os.environ.get("THAW_CACHE")
    os.environ["THAW_CACHE"] = str(cache)
    yield cache
    if before is None:
        del os.environ["THAW_CACHE"]
    else:
        os.environ["THAW_CACHE"] = before


def command(*arguments: str) -> list[str]:
    """Return the command `python train.py ARGUMENTS` with this interpreter."""
    return [sys.executable, str(ROOT / "train.py"), *arguments]


def typed(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run `python train.py ARGUMENTS` in a new process."""
    return subprocess.run(command(*arguments), cwd=cwd, capture_output=True, text=True, check=False)


def thaw(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run `thaw ARGUMENTS` in this process and return the exit status."""
    from thaw.cli import main as cli

    monkeypatch.setattr(sys, "argv", ["thaw", *arguments])
    return cli.main()


def only_run(outputs: Path) -> Path:
    """Return the only run directory under `outputs`."""
    (record,) = outputs.rglob("run.json")
    return record.parent


@pytest.fixture(scope="session")
def short_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train for one epoch and return the run directory, which tests only read."""
    from thaw.cli.train import launch

    outputs = tmp_path_factory.mktemp("short_run")
    assert launch([*TINY, "trainer.epochs=1", f"output_dir={outputs}"]) == 0
    return only_run(outputs)
