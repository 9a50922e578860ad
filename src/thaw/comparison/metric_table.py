"""Metrics besides the accuracy, with intervals, in a table of their own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from thaw.comparison.configurations import Configuration
from thaw.comparison.designs import average_by_split, compute_test_to_train_ratio
from thaw.comparison.pairing import score_runs
from thaw.comparison.significance import MIN_SPREAD, compute_corrected_std_error

METRIC_TITLES = {
    "macro_accuracy": "macro accuracy",
    "macro_f1": "macro F1",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "kappa": "Cohen's kappa",
}
CONFIDENCE_LEVEL = 0.95
OLD_NOTE = "A metric that a run did not record, as those before version 0.3, is “-”."


@dataclass(frozen=True)
class MetricEstimate:
    """The mean of a metric over runs with its 95 % interval; nan where it is unknown."""

    mean: float
    low: float
    high: float

    def format(self) -> str:
        """Return the numbers as text, such as "0.912 (0.880 to 0.944)"."""
        if math.isnan(self.mean):
            return "-"
        interval = "" if math.isnan(self.low) else f" ({self.low:.3f} to {self.high:.3f})"
        return f"{self.mean:.3f}{interval}"


@dataclass(frozen=True)
class MetricTable:
    """The metrics that the runs have recorded: a title for each column, and a row for each configuration."""

    titles: tuple[str, ...]
    rows: tuple[tuple[MetricEstimate, ...], ...]
    note: str


def estimate_metric(configuration: Configuration, metric: str) -> MetricEstimate:
    """Estimate a metric of the test images.

    Several runs give Student's interval over seeds, or the corrected resampled one over splits or folds. One run, or
    runs that agree, have the interval over test images that the first run recorded.
    """
    scored_runs, scores = score_runs(configuration.runs), configuration.get_scores("test", metric)
    is_over_splits = configuration.design != "seeds"
    values = average_by_split(scored_runs, scores) if is_over_splits else np.array(scores)
    mean = float(values.mean())
    if math.isnan(mean):
        return MetricEstimate(math.nan, math.nan, math.nan)
    if len(values) < 2 or np.ptp(values) < MIN_SPREAD:
        low, high = configuration.runs[0].metrics["test"].get(f"{metric}_ci95") or (math.nan, math.nan)
        return MetricEstimate(mean, low, high)
    std_error = compute_corrected_std_error(values, compute_test_to_train_ratio(scored_runs) if is_over_splits else 0.0)
    low, high = stats.t.interval(CONFIDENCE_LEVEL, len(values) - 1, loc=mean, scale=std_error)
    return MetricEstimate(mean, max(-1.0 if metric == "kappa" else 0.0, float(low)), min(1.0, float(high)))


def build_metric_table(configurations: Sequence[Configuration]) -> MetricTable | None:
    """Return the table; None if no run has recorded any of the metrics."""
    columns = {
        title: [estimate_metric(configuration, metric) for configuration in configurations]
        for metric, title in METRIC_TITLES.items()
    }
    columns = {title: column for title, column in columns.items() if not all(math.isnan(cell.mean) for cell in column)}
    if not columns:
        return None
    is_incomplete = any(math.isnan(cell.mean) for column in columns.values() for cell in column)
    note = _describe_intervals(configurations) + (f" {OLD_NOTE}" if is_incomplete else "")
    return MetricTable(tuple(columns), tuple(zip(*columns.values(), strict=True)), note)


def _describe_intervals(configurations: Sequence[Configuration]) -> str:
    parts = []
    designs = {configuration.design for configuration in configurations if len(configuration.runs) > 1}
    if "seeds" in designs:
        parts.append("over seeds, Student's t")
    if "resamples" in designs:
        parts.append("over splits, corrected resampled t")
    if "folds" in designs:
        parts.append("over folds, whose mean is shown, corrected resampled t")
    if any(len(configuration.runs) == 1 for configuration in configurations):
        parts.append("of one run, a bootstrap over its test images, or over groups of them")
    return f"95 % intervals: {'; '.join(parts)}."
