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

from tests.conftest import TINY, only_run, thaw
from tests.images import image_folder
from tests.pages import Page, needs_browser, opened
from thaw.cli.train import launch

SMALL = ("trainer.batch_size=8", "trainer.epochs=1", "trainer.accelerator=cpu", "trainer.threads=1")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("outputs")
    assert launch([*TINY, f"output_dir={outputs}"]) == 0
    return outputs


@pytest.fixture(scope="module")
def run(outputs: Path) -> Path:
    return only_run(outputs)


@pytest.fixture(scope="module")
def alone(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with best.ckpt and a picture, and what explaining it leaves in `seen`."""
    folder = tmp_path_factory.mktemp("alone")
    shutil.copy(run / "checkpoints" / "best.ckpt", folder)
    pixels = np.random.default_rng(0).integers(0, 255, (50, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "a picture.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        told = ("explain", "best.ckpt", "a picture.png", "--dream", "block2", "steps=2", "octaves=2", "out=seen")
        assert thaw(patch, *told) == 0
    return folder


def page(file: Path) -> Page:
    return Page(file.read_text(encoding="utf-8"))


def test_a_run_leaves_a_page_that_is_whole_and_refers_to_nothing_outside(run: Path) -> None:
    left = page(run / "report.html")
    assert left.open == []
    assert left.references
    assert all(one.startswith("data:image/") for one in left.references)


def test_the_page_says_what_the_files_say(run: Path) -> None:
    left, metrics = page(run / "report.html"), json.loads((run / "metrics.json").read_text())
    assert f"{metrics['test']['accuracy']:.3f}" in left.sections["metrics"]
    assert "20 test images" in left.sections["results"]
    assert "of 2 had the best validation accuracy" in left.sections["results"]
    assert "Phase all: epochs 1 to 2" in left.sections["plan"]
    assert "features were not cached: nothing before" in left.sections["plan"]
    assert "test images" in left.sections["classes"]
    shown = [section for section, _ in left.images]
    assert {"curves", "confusion", "images", "grad_cam"} <= set(shown)
    assert "Computed in the stage block3" in left.sections["grad_cam"]
    versions = json.loads((run / "run.json").read_text())["versions"]
    assert all(f"{name} {version}" in " ".join(left.sections.values()) for name, version in versions.items())


def test_the_page_can_be_written_anew_and_shows_the_same(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, numbers = page(run / "report.html"), (run / "metrics.json").read_bytes()
    assert thaw(monkeypatch, "report", str(run)) == 0
    after = page(run / "report.html")
    assert after.sections == before.sections
    assert [section for section, _ in after.images] == [section for section, _ in before.images]
    assert (run / "metrics.json").read_bytes() == numbers


def test_a_page_without_validation_images_and_without_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = image_folder(tmp_path / "data", {"train": 4, "test": 3}, classes=("<b>", "bees"))
    of_data = ("dataset=folder", f"dataset.root={data}", "dataset.fractions.val=0.0", "dataset.image_size=32")
    assert launch([*of_data, *SMALL, "strategy=fixed", f"output_dir={tmp_path / 'outputs'}"]) == 0
    run = only_run(tmp_path / "outputs")
    assert "nothing to choose an epoch by" in page(run / "report.html").sections["results"]
    assert "<td><b></td>" not in (run / "report.html").read_text()
    assert "<b>" in page(run / "report.html").sections["classes"]
    shutil.rmtree(data)
    data.mkdir()
    assert thaw(monkeypatch, "report", str(run)) == 0
    left = page(run / "report.html")
    assert "They are not available" in left.sections["images"]
    assert "confusion" in {section for section, _ in left.images}


def test_a_probe_leaves_a_page_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_data = [one for one in TINY if not one.startswith(("trainer.epochs",))]
    assert thaw(monkeypatch, "probe", *of_data, "heads.seeds=1", "heads.epochs=2", f"out={tmp_path / 'run'}") == 0
    left = page(tmp_path / "run" / "report.html")
    assert left.open == []
    assert "best of many" in left.sections["results"]
    assert "probe" in {section for section, _ in left.images}


@needs_browser
@pytest.mark.parametrize("width", [1200, 390])
def test_the_page_fits_a_browser_and_its_table_sorts(run: Path, width: int, tmp_path: Path) -> None:
    click = "document.querySelector('table.sortable th').click() || document.querySelector('table.sortable th').click()"
    first = f"({click}, document.querySelector('table.sortable tbody td').textContent)"
    content, inner, undrawn, top = opened(run / "report.html", width, tmp_path, first)
    assert (inner, undrawn, top) == (width, 0, "D")
    assert content <= width


def test_a_checkpoint_alone_explains_a_picture(alone: Path) -> None:
    index = page(alone / "seen" / "index.html")
    assert index.open == []
    assert [section for section, _ in index.images].count("grad_cam") == 3
    pages = {one for one in index.references if one.endswith(".html")}
    stages = {f"stage_{name}.html" for name in ("stem", *(f"block{n}" for n in range(1, 8)), "conv_head")}
    assert pages == stages
    assert all((alone / "seen" / name).is_file() for name in pages)
    assert "<svg" not in (alone / "seen" / "index.html").read_text()


def test_every_convolution_is_shown_or_named(alone: Path) -> None:
    block = page(alone / "seen" / "stage_block2.html")
    assert block.open == []
    assert "6 convolutions" in block.sections["layers"]
    assert "blocks.1.0.conv_dw Conv2dSame 96 x 8 x 8, 32 of the channels" in block.sections["layers"]
    assert [section for section, _ in block.images] == ["layers"] * 6
    assert (
        "a single position: blocks.6.0.conv_pw, blocks.6.0.conv_dw"
        in page(alone / "seen" / "stage_block7.html").sections["layers"]
    )


@pytest.mark.parametrize("name", ["grad_cam", "filters", "dream_block2", "stage_stem", "stage_block2"])
def test_the_pictures_lie_beside_the_pages(alone: Path, name: str) -> None:
    with Image.open(alone / "seen" / f"{name}.png") as image:
        assert len(set(image.convert("L").resize((64, 64)).tobytes())) > 8


def test_a_dream_is_the_same_on_every_call_and_another_by_another_seed(
    alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(alone)
    dreams = []
    for seed in ("0", "1"):
        told = ("--dream=block2", "steps=2", "octaves=2", f"seed={seed}", f"out=dreams{seed}")
        assert thaw(monkeypatch, "explain", "best.ckpt", "a picture.png", *told) == 0
        dreams.append((alone / f"dreams{seed}" / "dream_block2.png").read_bytes())
    assert dreams[0] == (alone / "seen" / "dream_block2.png").read_bytes() != dreams[1]


@needs_browser
@pytest.mark.parametrize("name", ["index", "stage_block2"])
def test_the_pages_fit_a_telephone(alone: Path, name: str, tmp_path: Path) -> None:
    content, inner, undrawn, _ = opened(alone / "seen" / f"{name}.html", 390, tmp_path)
    assert (inner, undrawn) == (390, 0)
    assert content <= 390


def test_a_folder_of_its_own_where_none_is_named(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert thaw(monkeypatch, "explain", str(alone / "best.ckpt"), str(alone / "a picture.png")) == 0
    (index,) = tmp_path.glob("explain_a picture_*/index.html")
    assert str(index.relative_to(tmp_path)) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("best.ckpt", "a pictur.png"), "a picture.png"),
        (("best.ckpt", "broken.png"), "the file is empty"),
        (("best.ckpt",), "a run or checkpoint, and a picture"),
        (("best.ckp", "a picture.png"), "best.ckp"),
        (("best.ckpt", "a picture.png", "--dream", "blok2"), "--dream block2"),
        (("best.ckpt", "a picture.png", "steps=3"), "--dream STAGE"),
        (("best.ckpt", "a picture.png", "--dream=block2", "rate=0"), "a number above 0"),
        (("best.ckpt", "a picture.png", "top=x"), "top=3"),
        (("best.ckpt", "a picture.png", "tpo=2"), "top=2"),
        (("best.ckpt", "a picture.png", "out=best.ckpt"), "a folder"),
    ],
)
def test_what_is_wrong_is_told(
    alone: Path,
    arguments: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(alone)
    (alone / "broken.png").write_bytes(b"")
    assert thaw(monkeypatch, "explain", *arguments) == 2
    assert message in capsys.readouterr().err


def test_no_report_of_what_is_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert thaw(monkeypatch, "report", str(tmp_path)) == 2
    assert "no run.json" in capsys.readouterr().err


def test_help_imports_no_torch() -> None:
    code = "import sys; from thaw.cli.main import main; main(); print('torch' in sys.modules)"
    for verb in ("explain", "report"):
        told = subprocess.run([sys.executable, "-c", code, verb, "--help"], capture_output=True, text=True, check=True)
        assert told.stdout.splitlines()[-1] == "False"
