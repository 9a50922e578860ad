"""The house's order: data flows downwards, and a room imports only the rooms before it."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src"
PACKAGE = SOURCE / "thaw"
FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = ["config", "data", "network", "strategy", "features", "analysis", "training"]  # of one run
ROOMS += ["trained", "comparison", "sweep", "commands", "launch", "cli"]
MOST_LINES = 400


def imported_by(file: Path) -> Iterator[str]:
    """Full names of the modules that `file` imports anywhere, inside functions too; no relative import has one."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import hides the room it comes from"
            yield from (f"{node.module}.{one.name}" for one in node.names)


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).with_suffix("").parts[0]


def rooms_imported_by(file: Path) -> set[str]:
    return {name.split(".")[1] for name in imported_by(file) if name.startswith("thaw.")}


def packages_imported_in(room: str) -> set[str]:
    return {name.split(".")[0] for file in (PACKAGE / room).rglob("*.py") for name in imported_by(file)}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_room_imports_only_the_rooms_before_it(file: Path) -> None:
    if room_of(file) == "__init__":
        assert rooms_imported_by(file) <= {"trained"}  # the Python interface
        return
    before = set(ROOMS[: ROOMS.index(room_of(file)) + 1])
    assert rooms_imported_by(file) <= before


@pytest.mark.parametrize(
    ("room", "stranger"),
    [
        ("config", "torch"),
        ("config", "torchvision"),
        ("config", "timm"),
        ("config", "pytorch_lightning"),
        ("strategy", "torch"),
        ("strategy", "pytorch_lightning"),
        ("data", "timm"),
        ("data", "pytorch_lightning"),
        ("network", "pytorch_lightning"),
        ("comparison", "torch"),
        ("comparison", "pytorch_lightning"),
    ],
)
def test_a_room_does_not_know_the_library(room: str, stranger: str) -> None:
    assert stranger not in packages_imported_in(room)


def test_data_knows_no_network() -> None:
    assert not any("network" in rooms_imported_by(file) for file in (PACKAGE / "data").rglob("*.py"))


def test_importing_thaw_loads_none_of_its_rooms() -> None:
    asked = "import sys, thaw; print([name for name in sys.modules if name.startswith('thaw.') or name == 'torch'])"
    assert subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True).stdout.strip() == "[]"


def test_the_test_sees_imports_inside_functions() -> None:
    assert "training" in rooms_imported_by(PACKAGE / "launch.py")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_no_file_outgrows_a_readers_patience(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= MOST_LINES
