"""`thaw audit`, as a user types it, on a folder with planted faults, and the files that it writes."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import thaw
from tests.conftest import ROOT, run_thaw
from tests.images import write_image_folder
from tests.pages import Page, needs_browser, open_in_browser

HARDWARE = ("trainer.accelerator=cpu", "trainer.threads=1", "dataset.image_size=32")
CLASSES = ("=cmd|'/C calc'!A0", "<script>alert(1)</script>", "plain $x_1$")
COLORS = ((40, 200, 90), (220, 80, 40), (60, 60, 220))
NUM_IMAGES = 14  # of each class


def write_faulty_folder(root: Path) -> Path:
    """Write images of one color per class, with a copy of a test image in train, a copy with another label, two copies
    in one split, a wrong label and a blank image."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        for index in range(NUM_IMAGES):
            color = np.array(COLORS[(label + (label == 2 and index == 3)) % 3])
            pixels = np.clip(color + rng.normal(0, 30, (40, 44, 3)), 0, 255).astype(np.uint8)
            split = "train" if index < 9 else "val" if index < 11 else "test"
            file = root / split / name.replace("/", "_") / f"{index:02} \N{RIGHT-TO-LEFT OVERRIDE}<b>.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
    folders = [root / split / CLASSES[2] for split in ("train", "test")]
    shutil.copy(next(folders[1].glob("12*")), folders[0] / "copy of a test image.png")
    shutil.copy(next(folders[0].glob("05*")), folders[0] / "copy.png")
    shutil.copy(next(folders[0].glob("06*")), root / "train" / CLASSES[0].replace("/", "_") / "other label.png")
    Image.new("RGB", (40, 40), (128, 128, 128)).save(folders[0] / "blank.png")
    return root


@dataclass(frozen=True)
class Audit:
    """The folder of the data, that of the audit, what was printed, and the exit status."""

    data: Path
    folder: Path
    output: str
    status: int

    def read_rows(self, name: str) -> list[dict[str, str]]:
        with (self.folder / name).open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))

    def list_paths(self, name: str, check: str = "") -> list[str]:
        return [row["path"] for row in self.read_rows(name) if not check or row["check"] == check]


def audit_folder(data: Path, folder: Path, *arguments: str) -> Audit:
    stream = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", stream)
        command = ["audit", "dataset=folder", f"dataset.root={data}", *HARDWARE, "--out", str(folder), *arguments]
        status = run_thaw(patch, *command)
    return Audit(data, folder, stream.getvalue(), status)


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Audit:
    folder = tmp_path_factory.mktemp("audit")
    return audit_folder(write_faulty_folder(folder / "data"), folder / "out", "--strict")


def test_planted_faults_are_found(audit: Audit) -> None:
    assert audit.status == 1  # --strict
    names = {name: Path(path).name for name, path in enumerate(audit.list_paths("audit.csv", "copies_across_splits"))}
    assert list(names.values()) == ["copy of a test image.png"]
    (conflict,) = [row for row in audit.read_rows("audit.csv") if row["check"] == "conflicting_labels"]
    assert {conflict["label"], conflict["other_label"]} == {f"'{CLASSES[0]}".replace("/", "_"), CLASSES[2]}
    assert [Path(path).name for path in audit.list_paths("audit.csv", "blank")] == ["blank.png"]
    suspects = [row for row in audit.read_rows("audit.csv") if row["check"] == "wrong_label"]
    assert any(row["path"].startswith(f"train/{CLASSES[2]}/03") for row in suspects)


def test_the_screen_has_a_row_for_each_check_and_what_to_type(audit: Audit) -> None:
    record = json.loads((audit.folder / "audit.json").read_text())
    titles = [check["title"] for check in record["checks"]]
    assert len(titles) >= 9
    assert [title for title in titles if title not in audit.output] == []
    assert f"data.exclude={audit.folder / 'exclude.csv'}" in audit.output
    assert f"data.relabel={audit.folder / 'relabel.csv'}" in audit.output
    assert "nothing found" in audit.output
    assert record["found"] == len(audit.read_rows("audit.csv")) == sum(check["count"] for check in record["checks"])
    assert record["images"] == {"train": 31, "val": 6, "test": 9}


def test_names_of_any_script_break_neither_page_nor_screen(audit: Audit) -> None:
    page = (audit.folder / "audit.html").read_text()
    assert "<script>alert" not in page
    assert html.escape(CLASSES[1].replace("/", "_")) in page
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in page + audit.output
    assert re.findall(r"<img(?![^>]*\balt=)", page) == []
    assert str(audit.data.parent) not in page.replace(str(audit.folder), "")
    assert len(page) < 1_000_000


def test_every_tag_of_the_page_is_closed_and_every_link_has_a_target(audit: Audit) -> None:
    page = Page((audit.folder / "audit.html").read_text())
    assert page.open == []
    assert {link.removeprefix("#") for link in page.references if link.startswith("#")} <= page.sections.keys()
    assert {section for section, _ in page.images} >= {"copies_across_splits", "conflicting_labels", "blank_images"}


@needs_browser
@pytest.mark.parametrize("width", [1280, 420])
def test_the_page_fits_into_the_window(width: int, audit: Audit, tmp_path: Path) -> None:
    content_width, window_width, num_missing, _ = open_in_browser(audit.folder / "audit.html", width, tmp_path)
    assert content_width <= window_width
    assert num_missing == 0


def test_the_files_are_applied_and_a_second_audit_shows_what_is_left(audit: Audit, tmp_path: Path) -> None:
    rows = audit.read_rows("relabel.csv")
    with (tmp_path / "relabel.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, ["label", "path"], delimiter=";", extrasaction="ignore")  # as a person edits it
        writer.writeheader()
        writer.writerows(rows)
    files = (f"data.exclude={audit.folder / 'exclude.csv'}", f"data.relabel={tmp_path / 'relabel.csv'}")
    second = audit_folder(audit.data, tmp_path / "second", *files)
    assert second.status == 0
    for check in ("copies_across_splits", "conflicting_labels", "copies_within_split", "blank"):
        assert second.list_paths("audit.csv", check) == []
    assert not set(audit.list_paths("relabel.csv")) & set(second.list_paths("audit.csv", "wrong_label"))
    assert set(audit.list_paths("exclude.csv")) <= set(second.list_paths("exclude.csv"))  # both old and new
    assert {row["path"]: row["label"] for row in rows}.items() <= {
        row["path"]: row["label"] for row in second.read_rows("relabel.csv")
    }.items()
    assert "data.exclude=" in second.output


def test_groups_on_both_sides_are_reported_first_and_do_not_stop_the_audit(tmp_path: Path) -> None:
    data = write_image_folder(tmp_path / "data", {"train": 8, "test": 4}, ("ants", "bees"))
    audit = audit_folder(data, tmp_path / "out", r"dataset.group_pattern=(\d+)\.png")
    assert audit.status == 0  # without --strict
    checks = json.loads((audit.folder / "audit.json").read_text())["checks"]
    assert (checks[0]["key"], checks[0]["count"]) == ("group_leaks", 8)
    assert "8 test images of 8 groups" in audit.output
    assert "with random folds and in" in " ".join(audit.output.split())
    assert "groups" not in [check["key"] for check in checks]  # it has some


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (("strategy=finetune",), ("an audit trains nothing",)),
        (("augment=flip",), ("as they are",)),
        (("folds=5", "fold=0"), ("folds of its own", "fold=0")),
        (("data.train_per_class=5",), ("all images", "leave it out")),
        (("trainer.epochs=3",), ("training in epochs",)),
        (("trainer.devices=2", "optimizer=sgd"), ("one device", "optimizer=sgd")),
        (("datset=captcha",), ("dataset=captcha",)),
        (("data.exclude=missing.csv",), ("no such file",)),
        (("--stric",), ("--strict",)),
    ],
)
def test_wrong_commands_end_with_2_and_show_the_fix(
    arguments: Sequence[str],
    messages: Sequence[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_thaw(monkeypatch, "audit", *arguments) == 2
    output = capsys.readouterr().err
    assert [message for message in messages if message not in output] == []


def test_a_wrong_command_is_refused_before_torch_is_imported() -> None:
    program = "import sys; from thaw.cli.main import main; print(main(sys.argv[1:]), 'torch' in sys.modules)"
    command = [sys.executable, "-c", program, "audit", "dataset=folder", "dataset.root=nowhere", "fold=1"]
    start_time = time.perf_counter()
    process = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert process.stdout.split() == ["2", "False"]
    assert time.perf_counter() - start_time < 10  # a slow machine; about half a second


def test_an_audit_in_python_is_silent_and_shows_itself(audit: Audit, capfd: pytest.CaptureFixture[str]) -> None:
    recipe = thaw.compose("dataset=folder", f"dataset.root={audit.data}", *HARDWARE)
    capfd.readouterr()
    result: Any = thaw.audit(recipe)
    assert capfd.readouterr() == ("", "")
    assert len(result.to_frame()) == len(result.findings) == len(audit.read_rows("audit.csv"))
    assert list(result.to_check_frame()["key"]) == [check.key for check in result.checks]
    assert "copies across splits: 1 pair" in repr(result)
    assert "<table" in result._repr_html_()
    assert "<script>" not in result._repr_html_()
    assert callable(thaw.audit)  # the package of the checks has another name
