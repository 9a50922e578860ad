"""`thaw data fetch`, `verify` and `report`, as a user types them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import run_thaw
from tests.data.hostile import write_hostile_folder
from tests.images import write_image_folder
from tests.pages import Page, needs_browser, open_in_browser


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_image_folder(tmp_path / "data", {"train": 6, "val": 2, "test": 3}, classes=("ants", "bees"))


def dataset_overrides(data: Path) -> tuple[str, str]:
    return "dataset=folder", f"dataset.root={data}"


def test_help_lists_the_verbs_and_imports_no_torch() -> None:
    code = "import sys; from thaw.cli.main import main; main(); print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code, "data", "--help"], capture_output=True, text=True, check=True)
    assert all(verb in run.stdout for verb in ("fetch", "verify", "report"))
    assert run.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("data", "verfy"), "thaw data verify"),
        (("dat",), "thaw data"),
        (("data", "verify", "dataset=hymenopter"), "dataset=hymenoptera"),
        (("data", "verify", "data.brocken=skip"), "data.broken"),
        (("data", "verify", "data.broken=ignore"), "data.broken=ignore"),
        (("data", "report", "-m"), "one recipe"),
        (("data", "fetch", "out=somewhere"), "out"),
    ],
)
def test_wrong_commands_end_with_2_and_show_the_fix(
    arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_thaw(monkeypatch, *arguments) == 2
    assert message in capsys.readouterr().err


def test_fetch_prints_what_the_data_set_holds_and_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_image_folder(tmp_path / "official", {"train": 6, "val": 3}, classes=("ants", "bees"))
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
        for file in folder.rglob("*.png"):
            archive.write(file, f"hymenoptera_data/{file.relative_to(folder)}")
    root_override = f"dataset.root={tmp_path / 'pictures.zip'}"
    assert run_thaw(monkeypatch, "data", "fetch", "dataset=hymenoptera", root_override) == 0
    output = capsys.readouterr().out
    assert "10 train, 2 val, 6 test images of 2 classes" in output
    root = Path(output.splitlines()[-1].removeprefix("it is in "))
    assert (root / "train" / "ants" / "00.png").is_file()


def test_verify_ends_with_0_if_there_is_no_problem(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_thaw(monkeypatch, "data", "verify", *dataset_overrides(data)) == 0
    assert "every image can be decoded; no problems" in capsys.readouterr().out


def test_verify_ends_with_1_and_names_the_problems(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "val" / "ants" / "00.png").write_bytes(b"")
    shutil.copy(data / "train" / "ants" / "00.png", data / "test" / "ants" / "copy.png")
    assert run_thaw(monkeypatch, "data", "verify", *dataset_overrides(data)) == 1
    output = capsys.readouterr().out
    assert "warning: images that cannot be decoded: 1 (val/ants/00.png (the file is empty))" in output
    assert "train/ants/00.png = test/ants/copy.png" in output


def test_verify_names_a_file_that_was_changed_without_a_new_time(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in data.rglob("*.png"):
        os.utime(file, (1e9, 1e9))  # older than the resolution of a clock
    overrides = (*dataset_overrides(data), f"data.cache_dir={tmp_path / 'cache'}")
    assert run_thaw(monkeypatch, "data", "fetch", *overrides) == 0
    file = data / "train" / "ants" / "00.png"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    os.utime(file, (1e9, 1e9))
    assert run_thaw(monkeypatch, "data", "verify", *overrides) == 1
    assert "files that were changed without a new time: 1 (train/ants/00.png)" in capsys.readouterr().out
    assert run_thaw(monkeypatch, "data", "verify", *overrides) == 0


def test_verify_checks_the_archive_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_image_folder(tmp_path / "official", {"train": 6, "val": 3}, classes=("ants", "bees"))
    (tmp_path / "cache" / "downloads").mkdir(parents=True)
    (tmp_path / "cache" / "downloads" / "hymenoptera_data.zip").write_bytes(b"rotten")
    overrides = ("dataset=hymenoptera", f"dataset.root={folder}", f"data.cache_dir={tmp_path / 'cache'}")
    assert run_thaw(monkeypatch, "data", "verify", *overrides) == 1
    assert "another checksum" in capsys.readouterr().out


def test_verify_ends_with_2_without_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    assert run_thaw(monkeypatch, "data", "verify", *dataset_overrides(tmp_path / "empty")) == 2


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of hostile images, in which every kind of thing is wrong."""
    folder = tmp_path_factory.mktemp("report")
    data = write_hostile_folder(folder / "data", 130)
    (data / "notes.txt").write_text("no image")
    (data / "train" / "ants" / "<b>.txt").write_text("no image")
    with pytest.MonkeyPatch.context() as patch:
        settings = ("dataset.image_size=64", "augment=crop_flip", f"out={folder / 'out'}")
        assert run_thaw(patch, "data", "report", *dataset_overrides(data), *settings) == 0
    return folder / "out"


def test_the_report_is_complete_and_needs_no_other_file(report: Path) -> None:
    page = Page((report / "report.html").read_text(encoding="utf-8"))
    assert page.open == []
    assert page.references
    assert all(reference.startswith("data:image/") for reference in page.references)


def test_the_report_shows_counts_sizes_colors_samples_and_augmentation(report: Path) -> None:
    page = Page((report / "report.html").read_text(encoding="utf-8"))
    sections = [section for section, _ in page.images]
    assert {"classes", "sizes", "aspects", "samples", "augmented"} <= set(sections)
    assert sections.count("samples") == 2 * 8
    assert sections.count("augmented") == 6 * 5
    assert "flip 0.5" in page.sections["augmented"]
    assert {"red", "green", "blue"} <= set(page.sections["color"].split())
    assert {"ants", "bees"} <= set(page.sections["classes"].split())


def test_the_report_names_every_problem_and_escapes_file_names(report: Path) -> None:
    text = (report / "report.html").read_text(encoding="utf-8")
    output = Page(text).sections["problems"]
    assert "Images that cannot be decoded: 40" in output
    assert "Images with equal files in different splits" in output
    assert "Images with equal files in different classes" in output
    assert "Images with a side of 1 pixel" in output
    assert "(20000 x 8)" in output
    assert "<b>.txt" in output
    assert "<b>.txt" not in text


def test_the_plots_are_written_beside_the_page(report: Path) -> None:
    for name in ("classes", "sizes", "aspects", "samples", "augmented"):
        with Image.open(report / f"{name}.png") as image:
            assert min(image.size) > 100
            assert len(set(image.convert("L").resize((64, 64)).tobytes())) > 4


@needs_browser
@pytest.mark.parametrize("width", [1200, 390])
def test_the_report_opens_in_a_browser_and_fits_its_width(report: Path, width: int, tmp_path: Path) -> None:
    content, inner, undrawn, _ = open_in_browser(report / "report.html", width, tmp_path)
    assert (inner, undrawn) == (width, 0)
    assert content <= width


def test_a_report_without_out_gets_a_new_folder_in_the_outputs(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        output_override = f"output_dir={tmp_path / 'outputs'}"
        assert (
            run_thaw(monkeypatch, "data", "report", *dataset_overrides(data), "dataset.image_size=32", output_override)
            == 0
        )
    pages = list((tmp_path / "outputs").glob("report_data_*/report.html"))
    assert len(pages) == 2
    assert "has no augmentation" in Page(pages[0].read_text(encoding="utf-8")).sections["augmented"]


def test_a_report_of_many_classes_states_how_many_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_image_folder(
        tmp_path / "data", {"train": 2, "test": 1}, classes=[f"class{number:02}" for number in range(50)]
    )
    out = (f"out={tmp_path / 'out'}", "dataset.image_size=32", "dataset.fractions.val=0.0")
    assert run_thaw(monkeypatch, "data", "report", *dataset_overrides(data), *out) == 0
    page = Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert "24 of 50 classes" in page.sections["samples"]
    assert "class49" in page.sections["classes"]
