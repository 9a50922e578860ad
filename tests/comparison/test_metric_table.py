"""Metrics besides the accuracy, by the design of the runs."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from tests.comparison.records import build_correct, write_run
from thaw.comparison.comparison import Comparison, build_comparison
from thaw.comparison.metric_table import build_metric_table, estimate_metric

AUROCS = (0.8, 0.85, 0.96)
NUM_TRAIN, NUM_TEST = 40, 20  # as records.write_run writes them


def compare_aurocs(folder: Path, *, has_folds: bool) -> Comparison:
    for index, auroc in enumerate(AUROCS):
        overrides = ["folds=3", f"fold={index}"] if has_folds else []
        paths = [f"{index * has_folds}/{number}" for number in range(NUM_TEST)]
        write_run(
            folder / str(index), *overrides, seed=0 if has_folds else index, paths=paths, metrics={"auroc": auroc}
        )
    return build_comparison(folder)


@pytest.mark.parametrize("has_folds", [False, True])
def test_intervals_of_metrics_follow_the_design(tmp_path: Path, *, has_folds: bool) -> None:
    comparison = compare_aurocs(tmp_path, has_folds=has_folds)
    estimate = estimate_metric(comparison.results.configurations[0], "auroc")
    assert estimate.mean == pytest.approx(np.mean(AUROCS))
    ratio = NUM_TEST / NUM_TRAIN if has_folds else 0
    half_width = stats.t.ppf(0.975, 2) * np.std(AUROCS, ddof=1) * np.sqrt(1 / 3 + ratio)
    assert estimate.low == pytest.approx(max(0, np.mean(AUROCS) - half_width))
    assert estimate.high == 1.0
    table = build_metric_table(comparison.results.configurations)
    assert table is not None
    assert ("over folds" in table.note) == has_folds
    assert ("over seeds" in table.note) != has_folds


def test_one_run_has_the_interval_that_it_recorded_and_an_old_run_none(tmp_path: Path) -> None:
    metrics = {"kappa": 0.7, "kappa_ci95": [0.5, 0.9]}
    write_run(tmp_path / "new", "strategy=fixed", metrics=metrics, correct=build_correct(20))
    write_run(tmp_path / "old", "strategy=scratch")
    comparison = build_comparison(tmp_path)
    table = build_metric_table(comparison.results.configurations)
    assert table is not None
    assert table.titles == ("macro accuracy", "macro F1", "Cohen's kappa")  # nobody recorded the others
    assert [row[-1].format() for row in table.rows] == ["0.700 (0.500 to 0.900)", "-"]
    assert "before version 0.3" in table.note
    page_path = comparison.save(tmp_path / "page")
    assert "0.700 (0.500 to 0.900)" in page_path.read_text(encoding="utf-8")
    assert "0.700 (0.500 to 0.900)" in (page_path.parent / "comparison.md").read_text(encoding="utf-8")
    with (page_path.parent / "comparison.csv").open(newline="") as stream:
        new_row, old_row = csv.DictReader(stream)
    assert (new_row["test_kappa"], new_row["test_kappa_low"], new_row["test_kappa_high"]) == ("0.7", "0.5", "0.9")
    assert old_row["test_kappa"] == ""
    assert math.isnan(estimate_metric(comparison.results.configurations[1], "kappa").low)
