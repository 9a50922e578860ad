"""What a run reports about its data: on the screen, in `run.json`, in TensorBoard."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import TINY, get_only_run, run_thaw
from tests.images import write_image_folder
from thaw.cli.train import launch
from thaw.training.tensorboard import tile_images


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run on images of which some are broken and some equal, and its output."""
    folder = tmp_path_factory.mktemp("run")
    data = write_image_folder(folder / "data", {"train": 12, "val": 2, "test": 3}, classes=("ants", "bees"))
    (data / "train" / "ants" / "03.png").write_bytes(b"")
    (data / "test" / "bees" / "01.png").write_text("no image")
    shutil.copy(data / "train" / "ants" / "00.png", data / "test" / "ants" / "copy.png")
    recipe = ("dataset=folder", f"dataset.root={data}", "dataset.image_size=32", *TINY[6:], "trainer.epochs=1")
    with pytest.MonkeyPatch.context() as patch:
        stream = io.StringIO()
        patch.setattr("sys.stdout", stream)
        assert launch([*recipe, "augment=crop_flip", "data.broken=skip", f"output_dir={folder / 'outputs'}"]) == 0
    return get_only_run(folder / "outputs"), stream.getvalue()


def test_skipped_images_are_counted_and_named_on_screen_and_in_the_record(run: tuple[Path, str]) -> None:
    directory, output = run
    data = json.loads((directory / "run.json").read_text())["data"]
    assert data["images"] == {"train": 23, "val": 4, "test": 6}
    assert data["skipped"].keys() == {"train/ants/03.png", "test/bees/01.png"}
    assert data["skipped"]["train/ants/03.png"] == "the file is empty"
    assert "skipped, cannot be decoded: 2 (train/ants/03.png: the file is empty, test/bees/01.png" in output


def test_problems_are_reported_once_and_recorded(run: tuple[Path, str]) -> None:
    directory, output = run
    data = json.loads((directory / "run.json").read_text())["data"]
    (problem,) = data["problems"]
    assert problem["kind"] == "duplicates_across_splits"
    assert problem["names"] == ["train/ants/00.png = test/ants/copy.png"]
    assert output.count("warning: images with equal files in different splits: 1") == 1


def test_the_accuracy_without_the_copy_is_everywhere(
    run: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    directory, output = run
    metrics = json.loads((directory / "metrics.json").read_text())
    assert json.loads((directory / "run.json").read_text())["data"]["leaks"] == {"copies": 1}
    assert (metrics["test"]["count"], metrics["test_without_leaks"]["count"]) == (6, 5)
    sentence = "1 of 6 test images leak: 1 with equal files in train or val. Without them the accuracy is "
    assert sentence in output
    report = (directory / "report.html").read_text()
    assert sentence in report
    assert "without test images that leak" in report
    assert run_thaw(monkeypatch, "evaluate", str(directory), "--out", str(tmp_path / "evaluation")) == 0
    evaluation_output = capsys.readouterr().out
    assert sentence in evaluation_output
    assert "the same numbers" in evaluation_output
    evaluated = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())["test_without_leaks"]
    assert {key: evaluated[key] for key in metrics["test_without_leaks"]} == metrics["test_without_leaks"]


def test_predictions_belong_to_the_images_that_are_not_skipped(run: tuple[Path, str]) -> None:
    rows = (run[0] / "predictions.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == [
        *(f"test/ants/{name}.png" for name in ("00", "01", "02", "copy")),
        *(f"test/bees/{name}.png" for name in ("00", "02")),
    ]
    assert all(row.split(",")[0].split("/")[1] == row.split(",")[1] for row in rows)


def test_tensorboard_shows_class_counts_and_samples_with_and_without_augmentation(
    run: tuple[Path, str],
) -> None:
    events = EventAccumulator(str(run[0] / "tensorboard"))
    events.Reload()
    tags = {tag for tag in events.Tags()["images"] if tag.startswith("data/")}
    assert tags == {"data/class_counts", "data/samples", "data/augmented"}
    pixels_by_tag = {}
    for tag in tags:
        (event,) = events.Images(tag)
        pixels_by_tag[tag] = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))
    side = 4 * 32 + 3 * 2
    assert pixels_by_tag["data/samples"].shape == pixels_by_tag["data/augmented"].shape == (side, side, 3)
    assert len(np.unique(pixels_by_tag["data/class_counts"])) > 8
    assert not np.array_equal(pixels_by_tag["data/samples"], pixels_by_tag["data/augmented"])


def test_tiles_form_rows_with_white_gaps() -> None:
    images = np.stack([np.full((3, 4, 3), level, dtype=np.uint8) for level in range(6)])
    tiles = tile_images(images, columns=4, gap=1)
    assert tiles.shape == (2 * 3 + 1, 4 * 4 + 3, 3)
    assert [tiles[0, 5 * level, 0] for level in range(4)] == [0, 1, 2, 3]
    assert tiles[4, 5, 0] == 5
    assert (tiles[3] == 255).all()
    assert (tiles[4:, 10:] == 255).all()
