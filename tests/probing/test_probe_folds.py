"""A cross-validated probe: each fold is the probe of that fold alone, and every image is tested once."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from tests.conftest import TINY
from tests.images import write_image_folder
from tests.probing.test_probe import GRID, RecordingReporter
from thaw.cli.probe import _print_folds
from thaw.config.compose import compose_recipe
from thaw.config.errors import UserError
from thaw.probing.cross_validation import CrossValidation
from thaw.probing.folds import probe_folds
from thaw.probing.probe import probe

FOLDS, NUM_IMAGES, IMAGES_PER_GROUP = 2, 32, 2


@pytest.fixture(scope="module")
def overrides(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two classes of 16 images, each pair of which is a group: 00 and 01, 02 and 03. Every fifth label is wrong, so
    that no classifier is always right."""
    root = tmp_path_factory.mktemp("data")
    write_image_folder(root, {"all": NUM_IMAGES // 2}, ("ants", "bees"))
    files = sorted(root.rglob("*.png"))
    for number, file in enumerate(files):
        class_name = "bees" if (file.parent.name == "ants") == (number % 5 == 0) else "ants"
        file.rename(root / "all" / class_name / f"p{number // IMAGES_PER_GROUP:02}-{number}.png")
    pattern = r"dataset.group_pattern=/(p\d+)-"
    data = ["dataset=folder", f"dataset.root={root / 'all'}", pattern, "dataset.image_size=32"]
    return [*data, *TINY[6:], "strategy=fixed"]


@pytest.fixture(scope="module")
def reporter() -> RecordingReporter:
    return RecordingReporter()


@pytest.fixture(scope="module")
def result(
    overrides: list[str], reporter: RecordingReporter, tmp_path_factory: pytest.TempPathFactory
) -> CrossValidation:
    return probe_folds(
        compose_recipe([*overrides, f"folds={FOLDS}"]), GRID, tmp_path_factory.mktemp("folds") / "probe", reporter
    )


def test_every_image_is_tested_once_and_no_group_is_in_two_folds(result: CrossValidation) -> None:
    assert len({prediction.path for prediction in result.predictions}) == len(result.predictions) == NUM_IMAGES
    folds_by_group: dict[str | None, set[int]] = {}
    for prediction in result.predictions:
        folds_by_group.setdefault(prediction.group, set()).add(prediction.fold)
    assert len(folds_by_group) == NUM_IMAGES // IMAGES_PER_GROUP == result.num_groups
    assert {len(folds) for folds in folds_by_group.values()} == {1}


def test_the_accuracy_is_that_of_all_images(result: CrossValidation) -> None:
    num_correct = sum(prediction.label == prediction.prediction for prediction in result.predictions)
    assert result.accuracy == pytest.approx(num_correct / NUM_IMAGES)
    low, high = result.accuracy_ci95
    assert 0 <= low < result.accuracy < high <= 1
    weighted = [fold.metrics["test"]["accuracy"] * fold.metrics["test"]["count"] for fold in result.folds]
    assert sum(weighted) == pytest.approx(num_correct)


def test_a_fold_is_the_probe_of_that_fold_alone_to_the_last_bit(
    result: CrossValidation, overrides: list[str], tmp_path: Path
) -> None:
    alone = probe(compose_recipe([*overrides, f"folds={FOLDS}", "fold=1"]), GRID, tmp_path / "run").run
    run = result.runs[1]
    assert run.name == "1_fold=1"
    assert run.recipe == alone.recipe
    assert run.record["data"] == alone.record["data"]
    for name in ("predictions.csv", "config.yaml"):
        assert (run.directory / name).read_bytes() == (alone.directory / name).read_bytes()
    weights, weights_alone = (torch.load(path.best_checkpoint)["state_dict"] for path in (run, alone))
    assert all(torch.equal(value, weights_alone[name]) for name, value in weights.items())


def test_features_are_computed_once(result: CrossValidation, reporter: RecordingReporter) -> None:
    assert sum("features an image" in line for line in reporter.lines) == 1
    assert [fold.metrics["timing"]["cache_s"] for fold in result.folds[1:]] == [0.0] * (FOLDS - 1)


def test_the_file_has_all_predictions(result: CrossValidation) -> None:
    with (result.directory / "out_of_fold.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["path"] for row in rows] == [prediction.path for prediction in result.predictions]
    assert [row["group"] for row in rows] == [prediction.group for prediction in result.predictions]
    assert list(rows[0]) == ["path", "group", "fold", "label", "prediction", "probability"]


def test_random_folds_are_measured_too(result: CrossValidation) -> None:
    assert result.group_effect is not None
    assert result.group_effect.num_groups == result.num_groups


def test_the_screen_has_a_row_for_each_fold(result: CrossValidation, capsys: pytest.CaptureFixture[str]) -> None:
    _print_folds(result)
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.lstrip().startswith(("0 ", "1 ")) for line in lines) == FOLDS
    assert any(line.startswith(f"accuracy {result.accuracy:.3f}   95 % interval") for line in lines)
    assert any(line.startswith("with random folds") for line in lines)


def test_a_notebook_shows_the_folds(result: CrossValidation) -> None:
    page = result._repr_html_()
    assert page.count("<tr>") == 1 + FOLDS
    assert f"accuracy {result.accuracy:.3f}" in page
    assert repr(result).startswith(f"CrossValidation({FOLDS} folds, accuracy")


def test_a_folder_with_runs_is_not_written_to(result: CrossValidation, overrides: list[str]) -> None:
    with pytest.raises(UserError, match=f"it holds {FOLDS} runs"):
        probe_folds(compose_recipe([*overrides, f"folds={FOLDS}"]), GRID, result.directory)
