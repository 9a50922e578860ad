"""`thaw explain` and `thaw report`, as a user types them; and the page that a run leaves."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import TINY, get_only_run, run_thaw
from tests.images import write_image_folder
from tests.pages import Page, needs_browser, open_in_browser
from thaw.cli.train import launch

SMALL = ("trainer.batch_size=8", "trainer.epochs=1", "trainer.accelerator=cpu", "trainer.threads=1")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("outputs")
    assert launch([*TINY, f"output_dir={outputs}"]) == 0
    return outputs


@pytest.fixture(scope="module")
def run(outputs: Path) -> Path:
    return get_only_run(outputs)


@pytest.fixture(scope="module")
def explained_checkpoint(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with best.ckpt and a picture, and what explaining it leaves in `seen`."""
    folder = tmp_path_factory.mktemp("alone")
    shutil.copy(run / "checkpoints" / "best.ckpt", folder)
    pixels = np.random.default_rng(0).integers(0, 255, (50, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "a picture.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        arguments = ("explain", "best.ckpt", "a picture.png", "--dream", "block2", "steps=2", "octaves=2", "out=seen")
        assert run_thaw(patch, *arguments) == 0
    return folder


def read_page(file: Path) -> Page:
    return Page(file.read_text(encoding="utf-8"))


def test_a_run_writes_a_complete_page_that_needs_no_other_file(run: Path) -> None:
    run_page = read_page(run / "report.html")
    assert run_page.open == []
    assert run_page.references
    assert all(reference.startswith("data:image/") for reference in run_page.references)


def test_the_page_shows_the_content_of_the_run_directory(run: Path) -> None:
    run_page, metrics = read_page(run / "report.html"), json.loads((run / "metrics.json").read_text())
    assert f"{metrics['test']['accuracy']:.3f}" in run_page.sections["metrics"]
    assert "20 test images" in run_page.sections["results"]
    assert "of 2 had the best validation accuracy" in run_page.sections["results"]
    assert "Phase all: epochs 1 to 2" in run_page.sections["plan"]
    assert "features were not cached: nothing before" in run_page.sections["plan"]
    assert "test images" in run_page.sections["classes"]
    sections = [section for section, _ in run_page.images]
    assert {"curves", "confusion", "images", "grad_cam"} <= set(sections)
    assert "Computed in the stage block3" in run_page.sections["grad_cam"]
    versions = json.loads((run / "run.json").read_text())["versions"]
    assert all(f"{name} {version}" in " ".join(run_page.sections.values()) for name, version in versions.items())


def test_the_page_written_again_shows_the_same(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, numbers = read_page(run / "report.html"), (run / "metrics.json").read_bytes()
    assert run_thaw(monkeypatch, "report", str(run)) == 0
    after = read_page(run / "report.html")
    assert after.sections == before.sections
    assert [section for section, _ in after.images] == [section for section, _ in before.images]
    assert (run / "metrics.json").read_bytes() == numbers


def test_a_page_without_validation_images_and_without_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_image_folder(tmp_path / "data", {"train": 4, "test": 3}, classes=("<b>", "bees"))
    dataset_overrides = ("dataset=folder", f"dataset.root={data}", "dataset.fractions.val=0.0", "dataset.image_size=32")
    assert launch([*dataset_overrides, *SMALL, "strategy=fixed", f"output_dir={tmp_path / 'outputs'}"]) == 0
    run = get_only_run(tmp_path / "outputs")
    assert "no validation images to choose an epoch by" in read_page(run / "report.html").sections["results"]
    assert "<td><b></td>" not in (run / "report.html").read_text()
    assert "<b>" in read_page(run / "report.html").sections["classes"]
    shutil.rmtree(data)
    data.mkdir()
    assert run_thaw(monkeypatch, "report", str(run)) == 0
    run_page = read_page(run / "report.html")
    assert "They are not available" in run_page.sections["images"]
    assert "confusion" in {section for section, _ in run_page.images}


def test_a_probe_writes_a_page_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset_overrides = [override for override in TINY if not override.startswith("trainer.epochs")]
    assert (
        run_thaw(monkeypatch, "probe", *dataset_overrides, "heads.seeds=1", "heads.epochs=2", f"out={tmp_path / 'run'}")
        == 0
    )
    run_page = read_page(tmp_path / "run" / "report.html")
    assert run_page.open == []
    assert "best of many" in run_page.sections["results"]
    assert "probe" in {section for section, _ in run_page.images}


@needs_browser
@pytest.mark.parametrize("width", [1200, 390])
def test_the_page_fits_a_browser_and_its_table_sorts(run: Path, width: int, tmp_path: Path) -> None:
    click = "document.querySelector('table.sortable th').click() || document.querySelector('table.sortable th').click()"
    first = f"({click}, document.querySelector('table.sortable tbody td').textContent)"
    content, inner, undrawn, first_cell = open_in_browser(run / "report.html", width, tmp_path, first)
    assert (inner, undrawn, first_cell) == (width, 0, "D")
    assert content <= width


def test_a_checkpoint_alone_explains_an_image(explained_checkpoint: Path) -> None:
    index = read_page(explained_checkpoint / "seen" / "index.html")
    assert index.open == []
    assert [section for section, _ in index.images].count("grad_cam") == 3
    pages = {reference for reference in index.references if reference.endswith(".html")}
    stages = {f"stage_{name}.html" for name in ("stem", *(f"block{n}" for n in range(1, 8)), "conv_head")}
    assert pages == stages
    assert all((explained_checkpoint / "seen" / name).is_file() for name in pages)
    assert "<svg" not in (explained_checkpoint / "seen" / "index.html").read_text()


def test_every_convolution_is_shown_or_named(explained_checkpoint: Path) -> None:
    block = read_page(explained_checkpoint / "seen" / "stage_block2.html")
    assert block.open == []
    assert "6 convolutions" in block.sections["layers"]
    assert "blocks.1.0.conv_dw Conv2dSame 96 x 8 x 8, 32 of the channels" in block.sections["layers"]
    assert [section for section, _ in block.images] == ["layers"] * 6
    assert (
        "a single position: blocks.6.0.conv_pw, blocks.6.0.conv_dw"
        in read_page(explained_checkpoint / "seen" / "stage_block7.html").sections["layers"]
    )


@pytest.mark.parametrize("name", ["grad_cam", "filters", "dream_block2", "stage_stem", "stage_block2"])
def test_the_images_are_written_beside_the_pages(explained_checkpoint: Path, name: str) -> None:
    with Image.open(explained_checkpoint / "seen" / f"{name}.png") as image:
        assert len(set(image.convert("L").resize((64, 64)).tobytes())) > 8


def test_a_dream_depends_only_on_its_seed(explained_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(explained_checkpoint)
    dreams = []
    for seed in ("0", "1"):
        arguments = ("--dream=block2", "steps=2", "octaves=2", f"seed={seed}", f"out=dreams{seed}")
        assert run_thaw(monkeypatch, "explain", "best.ckpt", "a picture.png", *arguments) == 0
        dreams.append((explained_checkpoint / f"dreams{seed}" / "dream_block2.png").read_bytes())
    assert dreams[0] == (explained_checkpoint / "seen" / "dream_block2.png").read_bytes() != dreams[1]


@needs_browser
@pytest.mark.parametrize("name", ["index", "stage_block2"])
def test_the_pages_fit_a_phone(explained_checkpoint: Path, name: str, tmp_path: Path) -> None:
    content, inner, undrawn, _ = open_in_browser(explained_checkpoint / "seen" / f"{name}.html", 390, tmp_path)
    assert (inner, undrawn) == (390, 0)
    assert content <= 390


def test_without_out_a_new_folder_is_created(
    explained_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        run_thaw(
            monkeypatch, "explain", str(explained_checkpoint / "best.ckpt"), str(explained_checkpoint / "a picture.png")
        )
        == 0
    )
    (index,) = tmp_path.glob("explain_a picture_*/index.html")
    assert str(index.relative_to(tmp_path)) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("best.ckpt", "a pictur.png"), "a picture.png"),
        (("best.ckpt", "broken.png"), "the file is empty"),
        (("best.ckpt",), "no IMAGE"),
        (("best.ckp", "a picture.png"), "best.ckp"),
        (("best.ckpt", "a picture.png", "--dream", "blok2"), "--dream block2"),
        (("best.ckpt", "a picture.png", "steps=3"), "--dream STAGE"),
        (("best.ckpt", "a picture.png", "--dream=block2", "rate=0"), "a number above 0"),
        (("best.ckpt", "a picture.png", "top=x"), "top=3"),
        (("best.ckpt", "a picture.png", "tpo=2"), "top=2"),
        (("best.ckpt", "a picture.png", "out=best.ckpt"), "a folder"),
    ],
)
def test_wrong_commands_end_with_2_and_show_the_fix(
    explained_checkpoint: Path,
    arguments: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(explained_checkpoint)
    (explained_checkpoint / "broken.png").write_bytes(b"")
    assert run_thaw(monkeypatch, "explain", *arguments) == 2
    assert message in capsys.readouterr().err


def test_a_folder_that_is_no_run_has_no_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_thaw(monkeypatch, "report", str(tmp_path)) == 2
    assert "no run.json" in capsys.readouterr().err


def test_help_imports_no_torch() -> None:
    code = "import sys; from thaw.cli.main import main; main(sys.argv[1:]); print('torch' in sys.modules)"
    for verb in ("explain", "report"):
        arguments = subprocess.run(
            [sys.executable, "-c", code, verb, "--help"], capture_output=True, text=True, check=True
        )
        assert arguments.stdout.splitlines()[-1] == "False"
