"""Import direction: a package imports only from the packages below it."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src"
PACKAGE = SOURCE / "thaw"
FILES = sorted(PACKAGE.rglob("*.py"))
PACKAGES = ["config", "metrics", "system", "strategy", "data", "models", "runs", "features", "visualization"]
PACKAGES += ["training", "probing", "auditing", "inference", "comparison", "sweeps", "api", "cli", "__main__"]
MAX_LINES = 400
RAW_STREAMS = {"sys.stdout.buffer", "sys.stderr.buffer", "sys.__stdout__", "sys.__stderr__"}


def iter_imports(file: Path) -> Iterator[str]:
    """Yield the full names of the modules that `file` imports, inside functions too; fail on relative imports."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import hides the package it comes from"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def get_package(file: Path) -> str:
    return file.relative_to(PACKAGE).with_suffix("").parts[0]


def find_thaw_imports(file: Path) -> set[str]:
    return {name.split(".")[1] for name in iter_imports(file) if name.startswith("thaw.")}


def find_libraries(package: str) -> set[str]:
    return {name.split(".")[0] for file in (PACKAGE / package).rglob("*.py") for name in iter_imports(file)}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_package_imports_only_from_packages_below_it(file: Path) -> None:
    if get_package(file) == "__init__":
        assert find_thaw_imports(file) <= {"api"}  # the Python API
        return
    packages_below = set(PACKAGES[: PACKAGES.index(get_package(file)) + 1])
    assert find_thaw_imports(file) <= packages_below


@pytest.mark.parametrize(
    ("package", "library"),
    [
        ("config", "torch"),
        ("config", "torchvision"),
        ("config", "timm"),
        ("config", "pytorch_lightning"),
        ("strategy", "torch"),
        ("strategy", "pytorch_lightning"),
        ("data", "timm"),
        ("data", "pytorch_lightning"),
        ("models", "pytorch_lightning"),
        ("comparison", "torch"),
        ("comparison", "pytorch_lightning"),
    ],
)
def test_a_package_does_not_import_the_library(package: str, library: str) -> None:
    assert library not in find_libraries(package)


def test_data_does_not_import_models() -> None:
    assert not any("models" in find_thaw_imports(file) for file in (PACKAGE / "data").rglob("*.py"))


def test_importing_thaw_loads_none_of_its_packages() -> None:
    code = "import sys, thaw; print([name for name in sys.modules if name.startswith('thaw.') or name == 'torch'])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_imports_inside_functions_are_checked() -> None:
    assert "training" in find_thaw_imports(PACKAGE / "cli" / "train.py")


def finds_way_around_escaping(file: Path) -> bool:
    """Return whether `file` builds a console of rich that prints to the terminal, or writes to a raw stream."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    console_calls = [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) == "Console"]
    has_console = any("file=io.StringIO()" not in ast.unparse(call) for call in console_calls)
    return has_console or any(ast.unparse(node) in RAW_STREAMS for node in nodes if isinstance(node, ast.Attribute))


def test_nothing_reaches_the_terminal_unescaped() -> None:
    assert [file.name for file in FILES if finds_way_around_escaping(file)] == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_no_file_is_too_long(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= MAX_LINES
