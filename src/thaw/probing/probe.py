"""Probe a frozen backbone: fit classifiers to its features, choose one on the validation images, keep it as a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits
from torch import nn

from thaw.config.errors import Problem, UserError
from thaw.config.schema import CaptchaDatasetConfig, DatasetConfig, Recipe
from thaw.models.head import get_linear_layers
from thaw.probing.classifiers import (
    fit_linear_svms,
    fit_logistic_regressions,
    fit_nearest_centroid,
    fit_nearest_neighbors,
)
from thaw.probing.linear_heads import HeadGrid, fit_linear_heads
from thaw.probing.record import ProbeResult, write_probe
from thaw.probing.trial import FeatureSet, LinearModel, ProbeData, ProbeTrial, fit_scaling, select_best
from thaw.runs.environment import lock_run
from thaw.runs.lifecycle import create_directory, create_run, record_status
from thaw.runs.run import Run
from thaw.system.devices import resolve_accelerator
from thaw.system.reporter import SILENT, Reporter
from thaw.training.evaluation import SplitPredictions, compute_split_metrics
from thaw.training.extraction import Extraction, extract_features


def probe(recipe: Recipe, grid: HeadGrid, directory: Path, reporter: Reporter = SILENT) -> ProbeResult:
    """Fit every classifier to the features of the recipe's backbone and leave the best in `directory`, as a run whose
    head it is.

    The test images choose nothing: only the winner is evaluated on them.

    Raises:
        UserError: if there are no validation images, or data, weights or hardware are not as the recipe needs them.
    """
    with create_directory(directory), lock_run(directory):
        run, start_time = create_run(recipe, directory), time.perf_counter()
        with record_status(run):
            extraction = extract_features(run.recipe, reporter=reporter)
            check_validation(extraction.samples.count_per_split(), recipe.dataset)
            reporter.write(describe_features(extraction))
            return fit_run(run, extraction, grid, start_time, reporter)


def describe_features(extraction: Extraction) -> str:
    """Return how many features an image has, and where they come from."""
    origin = f"computed in {extraction.seconds:.1f} s" if extraction.seconds else "from the cache"
    return f"{extraction.values.shape[1]} features an image, {origin}"


def fit_run(
    run: Run, extraction: Extraction, grid: HeadGrid, start_time: float, reporter: Reporter = SILENT
) -> ProbeResult:
    """Fit every classifier to the features of `extraction`, choose one, test it and write the files of `run`, which
    began at `start_time` of `time.perf_counter`."""
    fit_start_time = time.perf_counter()
    trials, winner = fit_classifiers(extraction, grid, _select_device(run.recipe), reporter)
    train_s = time.perf_counter() - fit_start_time
    predictions = _predict(extraction)
    metrics = compute_split_metrics(predictions, extraction.components.data)
    metrics["timing"] = _build_timing(time.perf_counter() - start_time, train_s, extraction.seconds)
    result = ProbeResult(trials, winner, metrics, run)
    write_probe(result, extraction, grid, predictions, reporter)
    return result


def _build_timing(wall_s: float, train_s: float, cache_s: float) -> dict[str, Any]:
    seconds = {"wall_s": wall_s, "train_s": train_s, "cache_s": cache_s}
    return {name: round(value, 3) for name, value in seconds.items()} | {"images_per_s": 0.0}  # there is no epoch


def check_validation(counts: dict[str, int], dataset: DatasetConfig) -> None:
    """Raise UserError if `counts`, the images of each split of `dataset`, has no validation images."""
    if counts["val"] == 0:
        got = ", ".join(f"{count} {split}" for split, count in counts.items())
        fix = "dataset.val=10" if isinstance(dataset, CaptchaDatasetConfig) else "dataset.fractions.val=0.15"
        raise UserError("a probe chooses on validation images.", [Problem(f"dataset={dataset.name}", got, fix=fix)])


def fit_classifiers(
    extraction: Extraction, grid: HeadGrid, device: torch.device, reporter: Reporter = SILENT
) -> tuple[list[ProbeTrial], ProbeTrial]:
    """Return all trials and the winner, which becomes the head of the extraction's network."""
    scaling = fit_scaling(extraction.values[extraction.samples.get_positions("train")])
    train, val = (
        FeatureSet(scaling.transform(extraction.values[positions]), extraction.labels[positions])
        for positions in (extraction.samples.get_positions(split) for split in ("train", "val"))
    )
    data = ProbeData(train, val, len(extraction.classes))
    seed, width = extraction.images.seed, extraction.values.shape[1]
    methods: dict[str, Callable[[], Iterable[ProbeTrial]]] = {
        "nearest centroid": lambda: [fit_nearest_centroid(data)],
        "k-NN": lambda: fit_nearest_neighbors(data),
        "logistic regression": lambda: fit_logistic_regressions(data),
        "linear SVM": lambda: fit_linear_svms(data),
        "linear heads": lambda: fit_linear_heads(data, grid, seed, width, device),
    }
    trials: list[ProbeTrial] = []
    for name, fit in methods.items():
        start_time, num_before = time.perf_counter(), len(trials)
        with threadpool_limits(torch.get_num_threads()):  # trainer.threads is meant for NumPy and SciPy too
            trials.extend(fit())
        reporter.write(f"{name}: {len(trials) - num_before} tried in {time.perf_counter() - start_time:.1f} s")
    winner = select_best(trials)
    assert winner.linear is not None
    set_linear_weights(extraction.network.head, scaling.fold_into(winner.linear))
    return trials, winner


def set_linear_weights(head: nn.Module, linear: LinearModel) -> None:
    """Copy `linear` into the only layer of a linear `head`."""
    (layer,) = get_linear_layers(head)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(linear.weight))
        layer.bias.copy_(torch.from_numpy(linear.bias))


def _select_device(recipe: Recipe) -> torch.device:
    is_on_gpu = resolve_accelerator(recipe.trainer) == "gpu" and torch.cuda.is_available()
    return torch.device("cuda" if is_on_gpu else "cpu")


@torch.inference_mode()
def _predict(extraction: Extraction) -> SplitPredictions:
    """Return the logits and positions of the validation and test images."""
    head = extraction.network.cpu().eval().head
    positions_by_split = {split: extraction.samples.get_positions(split) for split in ("val", "test")}
    return {
        split: (head(torch.from_numpy(extraction.values[positions])), torch.from_numpy(positions))
        for split, positions in positions_by_split.items()
    }
