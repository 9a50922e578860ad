"""A submission for Kaggle, from a run alone."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from tests.conftest import TINY, get_only_run, run_thaw
from tests.data import official
from tests.data.official import write_files
from thaw.cli.train import launch
from thaw.inference.load import load_checkpoint

SMALL = ("dataset.image_size=32", *TINY[6:], "trainer.epochs=1")


@pytest.fixture(scope="module")
def dogs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run on dog breeds in Kaggle's layout, and the data."""
    root, outputs = tmp_path_factory.mktemp("dogs"), tmp_path_factory.mktemp("outputs")
    write_files(root, official.make_dog_breeds_files(unlabelled=5))
    assert launch(["dataset=dog_breeds", f"dataset.root={root}", *SMALL, f"output_dir={outputs}"]) == 0
    return get_only_run(outputs), root


def test_each_unlabelled_image_gets_a_row_as_in_kaggles_sample(
    dogs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, root = dogs
    assert run_thaw(monkeypatch, "submit", str(run), f"out={tmp_path / 'mine.csv'}") == 0
    with (
        (tmp_path / "mine.csv").open(newline="") as stream,
        (root / "sample_submission.csv").open(newline="") as sample,
    ):
        rows, expected_rows = list(csv.reader(stream)), list(csv.reader(sample))
    assert rows[0] == expected_rows[0]
    assert sorted(row[0] for row in rows[1:]) == sorted(row[0] for row in expected_rows[1:])
    for row in rows[1:]:
        assert sum(map(float, row[1:])) == pytest.approx(1, abs=1e-4)


def test_a_data_set_that_has_moved_is_found_by_its_root(
    dogs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = dogs
    new_root = write_files(tmp_path / "moved", official.make_dog_breeds_files(unlabelled=2))
    assert run_thaw(monkeypatch, "submit", str(run), f"dataset.root={new_root}", f"out={tmp_path / 'mine.csv'}") == 0
    assert len((tmp_path / "mine.csv").read_text().splitlines()) == 3


def test_a_loaded_network_predicts_what_the_run_recorded(dogs: tuple[Path, Path]) -> None:
    from thaw.data.augmentation import center_crop
    from thaw.data.image import decode_image
    from thaw.data.resizing import resize_image

    run, root = dogs
    classifier = load_checkpoint(run)
    with (run / "predictions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    pixels = [
        torch.from_numpy(resize_image(decode_image(root / row["path"]), classifier.preprocessing).copy())
        for row in rows
    ]
    images = torch.stack([center_crop(image.permute(2, 0, 1), classifier.preprocessing.size) for image in pixels])
    best = classifier.predict_proba(images).max(1)
    assert [classifier.classes[index] for index in best.indices] == [row["prediction"] for row in rows]
    assert best.values.tolist() == pytest.approx([float(row["probability"]) for row in rows], abs=1e-4)


def test_a_run_without_unlabelled_images_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch([*TINY, "trainer.epochs=1", f"output_dir={tmp_path}"]) == 0
    assert run_thaw(monkeypatch, "submit", str(get_only_run(tmp_path))) == 2
    assert "dataset=captcha" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["absent", "foreign", "truncated"])
def test_a_file_that_is_no_checkpoint_is_a_problem(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "some.ckpt"
    if kind != "absent":
        torch.save({"state_dict": {"weight": torch.zeros(1000)}}, file)
    if kind == "truncated":
        file.write_bytes(file.read_bytes()[:1000])
    assert run_thaw(monkeypatch, "submit", str(file)) == 2
    output = capsys.readouterr().err
    assert "the checkpoint cannot be used" in output
    assert json.dumps(str(file))[1:-1] in output
