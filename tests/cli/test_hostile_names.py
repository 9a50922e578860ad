"""Names of files and classes cannot control the terminal, whichever command prints them."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from tests.conftest import get_only_run, run_thaw
from tests.images import write_image_folder
from thaw.cli.train import launch
from thaw.config.printable import UNPRINTABLE_PATTERN

pytestmark = pytest.mark.filterwarnings("ignore:Glyph")  # fonts lack control characters

HOSTILE = "\x1b]0;title\x07\x1b[2Jan\u202et\u2028s\x9b31m\x7f"
ESCAPED = r"\x1b]0;title\x07\x1b[2Jan\u202et\u2028s\x9b31m\x7f"
RUN = ("dataset.image_size=32", "trainer.epochs=1", "trainer.batch_size=8", "trainer.threads=1", "strategy=fixed")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "pictures"
    write_image_folder(root, {"train": 6, "val": 3, "test": 3}, [HOSTILE, "bees"])
    (root / "train" / "bees" / f"{HOSTILE}.png").write_bytes(b"no image")
    return root


@pytest.fixture(scope="module")
def training(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Train, and return the run and what was printed."""
    outputs, screen = tmp_path_factory.mktemp("outputs"), io.StringIO()
    arguments = [*RUN, "dataset=folder", f"dataset.root={root}", "data.broken=skip", f"output_dir={outputs}"]
    with redirect_stdout(screen), redirect_stderr(screen):
        status = launch([*arguments, "trainer.accelerator=cpu"])
    assert status == 0, screen.getvalue()
    return get_only_run(outputs), screen.getvalue()


@pytest.fixture(scope="module")
def run(training: tuple[Path, str]) -> Path:
    return training[0]


def read_output(capsys: pytest.CaptureFixture[str]) -> str:
    """Return what was printed, after checking that nothing in it can control a terminal."""
    captured = capsys.readouterr()
    output = captured.out + captured.err
    assert UNPRINTABLE_PATTERN.findall(output) == []
    return output


@pytest.mark.parametrize(
    ("command", "is_named"),
    [
        ("data verify dataset=folder dataset.root={root}", True),
        ("train dataset=folder dataset.root={root}/" + HOSTILE, True),
        ("predict {run} {root}/test", True),
        ("predict {run} {root} --csv", True),
        ("predict {run} {root}/test --json", False),  # JSON has its own escapes
        ("evaluate {run} --split all", True),
        ("evaluate {run} dataset.root={root}/train/" + HOSTILE, True),
        ("explain {run} {root}/nothing" + HOSTILE, True),
        ("compare {run} {run}", False),
        ("report {run}", False),
        ("list " + HOSTILE, True),
        ("inspect dataset=folder dataset.root={root}", False),
        ("resume {run}/" + HOSTILE, True),
        (HOSTILE, True),
    ],
)
def test_a_command_escapes_what_it_prints(
    run: Path,
    root: Path,
    tmp_path: Path,
    command: str,
    is_named: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    run_thaw(monkeypatch, *(word.format(run=run, root=root) for word in command.split(" ")))
    output = read_output(capsys)
    assert (ESCAPED in output) is is_named, output
    assert "Traceback" not in output


def test_a_training_escapes_what_it_prints(training: tuple[Path, str]) -> None:
    assert UNPRINTABLE_PATTERN.findall(training[1]) == []
    assert ESCAPED in training[1]


def test_a_page_shows_names_as_escapes(run: Path) -> None:
    page = (run / "report.html").read_text(encoding="utf-8")
    assert UNPRINTABLE_PATTERN.findall(page) == []
    assert ESCAPED in page
