"""Audit a data set: all checks, from one pass of frozen features."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from thaw.auditing.check_results import (
    describe_blank_images,
    describe_classes,
    describe_labels,
    describe_outliers,
    describe_shortcuts,
)
from thaw.auditing.classes import find_inseparable_classes
from thaw.auditing.copy_results import describe_copies, group_copies
from thaw.auditing.file_facts import read_file_facts
from thaw.auditing.findings import CheckResult
from thaw.auditing.group_names import suggest_groups
from thaw.auditing.group_results import describe_known_groups, describe_suggested_groups
from thaw.auditing.labels import check_labels, compute_label_scores
from thaw.auditing.neighbors import Neighbors, find_neighbors
from thaw.auditing.out_of_fold import OutOfFold, list_linked_pairs, merge_groups, predict_out_of_fold, project_features
from thaw.auditing.outliers import BlankImage, find_blank_images, find_outliers
from thaw.auditing.result import AuditResult
from thaw.auditing.shortcuts import measure_shortcuts
from thaw.auditing.suggestions import CopyGroups, Exclusion, suggest_exclusions, suggest_relabelings
from thaw.config.schema import Recipe
from thaw.data.image_store import ImageStore, LazyImageStore
from thaw.data.inspection import find_stored_copies
from thaw.data.samples import Samples
from thaw.system.reporter import SILENT, Reporter
from thaw.training.extraction import Extraction, extract_features

# The checks report copies and leaks, which a training would stop at, and see all images.
AUDIT_SETTINGS = {"near_duplicates": False, "train_per_class": None, "group_leak": "warn"}
NUM_STEPS = 7


@dataclass(frozen=True)
class AuditData:
    """What the checks have in common. Images of one group of `groups`, which has all copies too, are in one fold."""

    samples: Samples
    labels: np.ndarray
    projected: np.ndarray
    neighbors: Neighbors
    copy_groups: np.ndarray
    groups: np.ndarray
    predictions: OutOfFold


class ProgressOnly(Reporter):
    """Passes progress on; what a training says about its data is said by the checks."""

    def __init__(self, reporter: Reporter) -> None:
        self.progress = reporter.progress  # type: ignore[method-assign]
        self._shows_progress = reporter.shows_progress

    @property
    def shows_progress(self) -> bool:
        return self._shows_progress


def audit(recipe: Recipe, reporter: Reporter = SILENT) -> AuditResult:
    """Check the data set of `recipe`, by the features of its backbone; nothing is written.

    Raises:
        UserError: if data, weights or hardware are not as the recipe needs them.
    """
    start_time = time.perf_counter()
    data_settings = recipe.data.model_copy(update=AUDIT_SETTINGS)
    recipe = recipe.model_copy(update={"data": data_settings, "folds": None, "fold": None})
    extraction = extract_features(recipe, reporter=ProgressOnly(reporter))
    feature_seconds = time.perf_counter() - start_time
    with threadpool_limits(torch.get_num_threads()):  # trainer.threads is meant for NumPy and SciPy too
        checks, exclusions = _run_checks(extraction, reporter)
    findings = [finding for check in checks for finding in check.findings]
    relabelings = suggest_relabelings(findings, exclusions, extraction.samples)
    facts = {
        "backbone": recipe.backbone.name,
        "features": extraction.values.shape[1],
        "feature_seconds": round(feature_seconds, 3),
        "skipped": extraction.components.data.inspection.skipped,
    }
    seconds = time.perf_counter() - start_time
    return AuditResult(
        recipe.dataset.name,
        extraction.samples,
        extraction.images,
        tuple(checks),
        exclusions,
        relabelings,
        seconds,
        facts,
    )


def _run_checks(extraction: Extraction, reporter: Reporter) -> tuple[list[CheckResult], tuple[Exclusion, ...]]:
    """Run all checks; those of what makes an accuracy worthless come first."""
    samples, store = extraction.samples, extraction.images.store
    with reporter.progress("checking", NUM_STEPS, unit="checks") as advance:
        start_time = time.perf_counter()
        pairs = find_stored_copies(samples, store, extraction.values.reshape(len(samples.samples), -1))
        copy_results = describe_copies(pairs, samples, time.perf_counter() - start_time)
        advance(1, "neighbors")
        data = _prepare(extraction, group_copies(pairs, len(samples.samples)))
        advance(1, "groups")
        group_result = _time(lambda: _check_groups(data))
        advance(1, "labels")
        label_result = _time(lambda: _check_labels(data))
        advance(1, "shortcuts")
        shortcut_result = _time(lambda: _check_shortcuts(data))
        advance(1, "classes")
        class_result = _time(lambda: _check_classes(data))
        advance(1, "outliers")
        outlier_result = _time(lambda: describe_outliers(find_outliers(data.neighbors), samples))
        blank_images, blank_seconds = _find_blank_images(store, len(samples.samples))
        blank_result = replace(describe_blank_images(blank_images, samples), seconds=blank_seconds)
        advance(1)
    exact_groups = group_copies([pair for pair in pairs if pair.is_exact], len(samples.samples))
    copies = CopyGroups(exact_groups, data.copy_groups, compute_label_scores(data.predictions, data.labels))
    exclusions = suggest_exclusions(copies, [image.position for image in blank_images], samples)
    first_results = [group_result, *copy_results] if samples.has_groups else [*copy_results, group_result]
    others = [label_result, shortcut_result, class_result, outlier_result, blank_result]
    return [*first_results, *others], exclusions


def _prepare(extraction: Extraction, copy_groups: np.ndarray) -> AuditData:
    samples, labels = extraction.samples, extraction.labels
    features = extraction.values.reshape(len(labels), -1)
    projected, neighbors = project_features(features), find_neighbors(features)
    known_groups = samples.get_groups()
    groups = merge_groups(copy_groups, list_linked_pairs(known_groups)) if samples.has_groups else copy_groups
    predictions = predict_out_of_fold(projected, neighbors, labels, groups)
    return AuditData(samples, labels, projected, neighbors, copy_groups, groups, predictions)


def _check_groups(data: AuditData) -> CheckResult:
    samples = data.samples
    if not samples.has_groups:
        paths = list(samples.samples.paths)
        suggestion = suggest_groups(paths, data.projected, data.neighbors, data.labels, data.copy_groups)
        return describe_suggested_groups(suggestion, samples)
    random_predictions = predict_out_of_fold(data.projected, data.neighbors, data.labels, data.copy_groups)
    accuracies = [predictions.compute_accuracy(data.labels) for predictions in (random_predictions, data.predictions)]
    return describe_known_groups(samples, *accuracies)


def _check_labels(data: AuditData) -> CheckResult:
    check = check_labels(data.projected, data.neighbors, data.labels, data.groups, data.predictions)
    correction = data.samples.corrections.get("relabeled")
    checked_paths = {*correction.paths} if correction else set()
    checked = {index for index, path in enumerate(data.samples.samples.paths) if path in checked_paths}
    return describe_labels(check, data.samples, data.neighbors, checked)


def _check_shortcuts(data: AuditData) -> CheckResult:
    facts = read_file_facts(data.samples.root, list(data.samples.samples.paths))
    return describe_shortcuts(measure_shortcuts(facts, data.labels, data.groups), data.samples.classes)


def _check_classes(data: AuditData) -> CheckResult:
    return describe_classes(find_inseparable_classes(data.predictions, data.labels), data.samples, data.predictions)


def _find_blank_images(store: ImageStore | LazyImageStore, num_images: int) -> tuple[tuple[BlankImage, ...], float]:
    start_time = time.perf_counter()
    blank_images = find_blank_images(store[position] for position in range(num_images))
    return blank_images, time.perf_counter() - start_time


def _time(check: Callable[[], CheckResult]) -> CheckResult:
    start_time = time.perf_counter()
    return replace(check(), seconds=time.perf_counter() - start_time)
