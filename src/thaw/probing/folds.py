"""Cross-validate a probe: features once, then one run for each fold, whose images the other folds' classifiers test."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from thaw.config.errors import Problem, UserError
from thaw.config.schema import Recipe
from thaw.data.factory import load_fold_samples
from thaw.data.samples import Samples
from thaw.probing.cross_validation import CrossValidation, build_cross_validation, write_predictions
from thaw.probing.group_effect import GroupEffect, measure_group_effect
from thaw.probing.linear_heads import HeadGrid
from thaw.probing.probe import check_validation, describe_features, fit_run
from thaw.probing.record import ProbeResult
from thaw.runs.environment import lock_run
from thaw.runs.lifecycle import create_directory, create_run, record_status
from thaw.runs.run import Run, find_runs
from thaw.system.reporter import SILENT, Reporter
from thaw.training.extraction import Extraction, extract_features
from thaw.training.setup import build_data


def probe_folds(recipe: Recipe, grid: HeadGrid, directory: Path, reporter: Reporter = SILENT) -> CrossValidation:
    """Probe each fold of `recipe.folds`: classifiers are fitted to the train images of the fold, one is chosen on its
    validation images and tested on its test images. Features are computed once.

    Each fold is a run in `directory`, the one that `probe` leaves for a recipe with this `fold`.

    Raises:
        UserError: if there are no validation images, or data, weights or hardware are not as the recipe needs them.
    """
    with create_directory(directory), lock_run(directory):
        _check_empty(directory)
        reporter.write(f"{recipe.folds} folds of all images, each tested once. The first:")
        fold_samples = load_fold_samples(recipe, reporter)
        first_extraction = extract_features(recipe.model_copy(update={"fold": 0}), reporter=reporter)
        reporter.write(describe_features(first_extraction) + "\n")
        results = [
            _probe_fold(extraction, grid, directory, reporter)
            for extraction in iter_fold_extractions(first_extraction, fold_samples)
        ]
        effect = _measure_group_effect(first_extraction, recipe)
        result = build_cross_validation(directory, results, first_extraction.samples, effect)
        write_predictions(result)
    return result


def _check_empty(directory: Path) -> None:
    if runs := find_runs(directory):
        problem = Problem(str(directory), f"it holds {len(runs)} runs", "an empty or a new folder", "--out DIR")
        raise UserError("The folder of the folds is taken.", [problem])


def iter_fold_extractions(extraction: Extraction, fold_samples: Sequence[Samples]) -> Iterator[Extraction]:
    """Yield the features of `extraction` for each fold: with its splits, and in the order of its samples.

    `fold_samples` are the samples of each fold as they were read. All folds share the network of `extraction`.
    """
    rows_by_path = {path: row for row, path in enumerate(extraction.paths)}
    for fold, samples in enumerate(fold_samples):
        recipe = extraction.components.recipe.model_copy(update={"fold": fold})
        data = build_data(recipe, samples, extraction.preprocessing)
        rows = [rows_by_path[path] for path in data.samples.samples.paths]
        components = replace(extraction.components, recipe=recipe, data=data)
        seconds = extraction.seconds if fold == 0 else 0.0
        yield replace(extraction, components=components, values=extraction.values[rows], seconds=seconds)


def _probe_fold(extraction: Extraction, grid: HeadGrid, directory: Path, reporter: Reporter) -> ProbeResult:
    recipe, start_time = extraction.components.recipe, time.perf_counter()
    run: Run = create_run(recipe, directory / f"{recipe.fold}_fold={recipe.fold}")
    with record_status(run):
        check_validation(extraction.samples.count_per_split(), recipe.dataset)
        result = fit_run(run, extraction, grid, start_time)
    seconds, accuracy = time.perf_counter() - start_time, result.metrics["test"]["accuracy"]
    counts = f"{len(result.trials)} classifiers in {seconds:.1f} s"
    reporter.write(f"fold {recipe.fold} of {recipe.folds}: {counts}, test accuracy {accuracy:.3f}")
    return result


def _measure_group_effect(extraction: Extraction, recipe: Recipe) -> GroupEffect | None:
    """Return what random folds of the same features measure; None without groups."""
    if not extraction.samples.has_groups:
        return None
    assert recipe.folds is not None
    order = np.argsort(np.array(extraction.paths))  # the result does not depend on the splits of a fold
    features, labels, groups = (
        array[order] for array in (extraction.values, extraction.labels, extraction.samples.get_groups())
    )
    with threadpool_limits(torch.get_num_threads()):
        return measure_group_effect(features, labels, groups, recipe.folds, recipe.dataset.split_seed)
