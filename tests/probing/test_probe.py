"""A probe started from Python: its result, and what it tells the person who waits."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import TINY
from thaw.config.compose import compose_recipe
from thaw.config.errors import UserError
from thaw.probing.linear_heads import HeadGrid
from thaw.probing.probe import check_validation, probe
from thaw.probing.record import ProbeResult
from thaw.runs.run import Run
from thaw.system.reporter import Reporter
from thaw.training.extraction import Extraction, extract_features

RECIPE = (*TINY, "strategy=fixed")
GRID = HeadGrid(learning_rates=(1e-3, 1e-2), weight_decays=(0.0, 0.1), seeds=1, epochs=3)


class RecordingReporter(Reporter):
    """Remembers what was written."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, text: str = "", style: str = "") -> None:
        self.lines.append(text)


@pytest.fixture(scope="module")
def reporter() -> RecordingReporter:
    return RecordingReporter()


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, reporter: RecordingReporter) -> ProbeResult:
    return probe(compose_recipe([*RECIPE]), GRID, tmp_path_factory.mktemp("probe") / "run", reporter)


@pytest.fixture(scope="module")
def extraction() -> Extraction:
    return extract_features(compose_recipe([*RECIPE]))


def test_the_result_belongs_to_a_finished_run(result: ProbeResult) -> None:
    assert isinstance(result.run, Run)
    assert result.run.status == "done"
    assert result.run.is_probe
    assert result.metrics == result.run.metrics
    assert result.winner in result.trials


def test_the_reporter_hears_of_the_features_and_of_each_method(
    result: ProbeResult, reporter: RecordingReporter
) -> None:
    (start,) = [index for index, line in enumerate(reporter.lines) if line.startswith("1280 features an image, ")]
    method_lines = reporter.lines[start + 1 :]
    methods = [line.split(":")[0] for line in method_lines]
    assert methods == ["nearest centroid", "k-NN", "logistic regression", "linear SVM", "linear heads"]
    assert sum(int(line.split()[-5]) for line in method_lines) == len(result.trials)


def test_the_frame_has_all_trials_as_probe_csv_has_them(result: ProbeResult) -> None:
    pytest.importorskip("pandas")
    rows = result.to_frame().to_dict("records")
    with (result.run.directory / "probe.csv").open(newline="") as stream:
        expected_rows = list(csv.DictReader(stream))
    assert len(rows) == len(expected_rows) == len(result.trials)
    for row, expected in zip(rows, expected_rows, strict=True):
        assert list(row) == list(expected)
        assert (row["method"], row["setting"], row["remark"]) == (
            expected["method"],
            expected["setting"],
            expected["remark"],
        )
        assert row["val_accuracy"] == pytest.approx(float(expected["val_accuracy"]), rel=1e-5)
        assert row["can_be_chosen"] == (expected["can_be_chosen"] == "yes") == np.isfinite(row["val_loss"])
        assert row["chosen"] == (expected["chosen"] == "yes")
    assert sum(row["chosen"] for row in rows) == 1


def test_a_notebook_shows_the_best_trial_of_each_method(result: ProbeResult) -> None:
    page = result._repr_html_()
    assert page.count("<tr>") == 1 + 5
    assert "<b>chosen" in page
    assert f"{len(result.trials)} trials" in page


def test_the_repr_names_the_winner_and_its_accuracy(result: ProbeResult) -> None:
    assert repr(result).startswith(f"ProbeResult({result.winner.method}")
    assert f"test accuracy {result.metrics['test']['accuracy']:.3f}" in repr(result)


@pytest.mark.parametrize(
    ("overrides", "fix"),
    [
        (("dataset=folder", "dataset.root=.", "dataset.name=captcha"), "dataset.fractions.val=0.15"),
        (("dataset=captcha", "dataset.name=letters"), "dataset.val=10"),
    ],
)
def test_a_data_set_without_validation_images_is_rejected(overrides: tuple[str, ...], fix: str) -> None:
    dataset = compose_recipe([*overrides]).dataset
    with pytest.raises(UserError) as error:
        check_validation({"train": 9, "val": 0, "test": 3}, dataset)
    assert [problem.fix for problem in error.value.problems] == [fix]


def test_a_probe_prints_nothing_by_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    probe(compose_recipe([*RECIPE]), HeadGrid((1e-2,), (0.0,), 1, 1), tmp_path / "run")
    assert "tried in" not in capsys.readouterr().out


def test_an_extraction_has_labels_paths_and_splits_in_the_order_of_its_values(extraction: Extraction) -> None:
    num_images = 4 * (9 + 4 + 5)
    assert extraction.values.shape == (num_images, 1280)
    assert [len(column) for column in (extraction.labels, extraction.paths, extraction.splits)] == [num_images] * 3
    assert extraction.labels.dtype == np.int64
    assert extraction.classes == ("A", "B", "C", "D")
    assert {split: extraction.splits.count(split) for split in ("train", "val", "test")} == {
        "train": 36,
        "val": 16,
        "test": 20,
    }
    assert all(
        f"/{extraction.classes[label]}/" in f"/{path}"
        for path, label in zip(extraction.paths, extraction.labels, strict=True)
    )


def test_an_extraction_is_a_frame_with_a_row_per_image(extraction: Extraction) -> None:
    pytest.importorskip("pandas")
    frame = extraction.to_frame()
    assert list(frame.columns) == ["path", "label", "class", "split", "features"]
    assert np.array_equal(np.stack(frame["features"]), extraction.values)
    assert frame["label"].tolist() == extraction.labels.tolist()
    assert frame["class"].tolist() == [extraction.classes[label] for label in extraction.labels]


def test_the_repr_of_an_extraction_is_short(extraction: Extraction) -> None:
    assert repr(extraction) == f"Extraction(72 x 1,280 features after {extraction.stage}, 4 classes)"
