"""Evaluate a trained network: predictions, metrics, plots and report."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from thaw.data.leaks import WITHOUT_LEAKS, select_clean
from thaw.data.samples import Samples
from thaw.metrics.classification import classification_metrics, confusion_matrix, top_losses
from thaw.models.state_dict import read_state
from thaw.runs.run import Run
from thaw.system.reporter import SILENT, Reporter
from thaw.training.dataloaders import EpochLoader
from thaw.training.distributed.collectives import all_gather_object, broadcast
from thaw.training.distributed.fsdp import is_sharded, load_full_state_dict
from thaw.training.setup import Data, Model, TrainingSetup
from thaw.training.tensorboard import log_results
from thaw.visualization.plots.example_images import evaluation_pixels
from thaw.visualization.plots.image_grid import build_captions, save_image_grid
from thaw.visualization.plots.text import find_missing_characters
from thaw.visualization.plots.training import save_confusion_matrix, save_curves
from thaw.visualization.reports.run import ExplainedModel, render_run_report

MAX_CHARACTERS_LISTED = 10
MAX_SAMPLES_SHOWN, MAX_TOP_LOSSES_SHOWN = 32, 16
SplitPredictions = dict[str, tuple[Tensor, Tensor]]  # split -> logits [n, classes], positions in the table [n]


def predict_splits(trainer: pl.Trainer, setup: TrainingSetup, checkpoint_path: Path) -> SplitPredictions:
    """Compute the logits of validation and test images with the weights of a checkpoint.

    The first process reads the checkpoint: the others may not see its disk.
    """
    module, loaders = setup.module, setup.loaders.predict_loaders
    state = broadcast(read_state(checkpoint_path) if trainer.is_global_zero else {})
    load_full_state_dict(module.network, {name.removeprefix("network."): value for name, value in state.items()})
    module.network.requires_grad_(False)
    setup.batch_source.use_cached()
    outputs: Any = trainer.predict(module, [EpochLoader(loader) for loader in loaders.values()])
    outputs = [outputs] if len(loaders) == 1 else outputs
    return {split: _gather_sorted(batches) for split, (batches,) in zip(loaders, outputs, strict=True)}


def _gather_sorted(batches: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Concatenate the batches of all processes, sorted by position in the table."""
    all_batches = [batch for rank_batches in all_gather_object(batches) for batch in rank_batches]
    logits, positions = (torch.cat(tensors) for tensors in zip(*all_batches, strict=True))
    order = positions.argsort()
    return logits[order], positions[order]


def compute_split_metrics(predictions: SplitPredictions, data: Data) -> dict[str, Any]:
    """Compute the metrics of each split of `data`, and those of the test images that do not leak, if some do."""
    parts = dict(predictions)
    if leaks := data.find_leaks():
        logits, positions = predictions["test"]
        is_clean = torch.from_numpy(select_clean(positions.numpy(), leaks))
        parts |= {WITHOUT_LEAKS: (logits[is_clean], positions[is_clean])} if is_clean.any() else {}
    return {name: _compute_metrics(part, data.samples) for name, part in parts.items()}


def _compute_metrics(part: tuple[Tensor, Tensor], samples: Samples) -> dict[str, Any]:
    logits, positions = part
    labels = torch.from_numpy(samples.get_labels())[positions]
    groups = samples.get_groups()[positions.numpy()] if samples.has_groups else None
    return classification_metrics(logits, labels, groups)


def compute_timing(run: Run, num_train_images: int, wall_s: float, cache_s: float) -> dict[str, float]:
    """Compute the seconds of all epochs, including those before a resume, and the training throughput.

    Images per second exclude validation. `cache_s` is the time spent computing features, which is in no epoch.
    """
    rows = run.read_history()
    train_seconds = sum(float(row["train_seconds"]) for row in rows)
    return {
        "wall_s": round(wall_s, 3),
        "train_s": round(sum(float(row["seconds"]) for row in rows), 3),
        "images_per_s": round(num_train_images * len(rows) / train_seconds, 1) if train_seconds else 0.0,
        "cache_s": round(cache_s, 3),
    }


def draw_results(
    run: Run,
    data: Data,
    model: Model,
    predictions: SplitPredictions,
    metrics: dict[str, Any],
    reporter: Reporter = SILENT,
) -> None:
    """Draw what explains the results: the files in plots/, the results in TensorBoard, and report.html.

    The results are in the run directory already, so a drawing that fails is a warning. `model` has the weights of the
    best epoch.
    """
    if missing := find_missing_characters(data.samples.classes):
        characters = " ".join(sorted(missing)[:MAX_CHARACTERS_LISTED])
        reporter.warn(
            f"no installed font has {characters}: plots show code points in their place; install a font that "
            "has them, such as one of the Noto family"
        )
    drawings: dict[str, Callable[[], object]] = {
        "the folder of plots": lambda: run.plots_directory.mkdir(exist_ok=True),
        "samples.jpg and worst.jpg": lambda: save_image_grids(run, data, predictions),
        "curves.png": lambda: save_history(run),
        "confusion_matrix.png": lambda: save_confusion(run, data, predictions),
        "TensorBoard's results": lambda: log_results(run, data.samples, predictions["test"], metrics),
        "report.html": lambda: write_report(run, data, model),
    }
    for name, draw in drawings.items():
        with warn_if_not_drawn(name, run.directory, reporter):
            draw()


@contextmanager
def warn_if_not_drawn(name: str, directory: Path, reporter: Reporter) -> Iterator[None]:
    """Turn an exception of the block into a warning: no drawing may cost a training. A full disk stays an error."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        reason = f"{type(error).__name__}: {error}"
        reporter.warn(f"{name} of {directory} could not be drawn, which does not affect the results: {reason}")


def save_image_grids(run: Run, data: Data, predictions: SplitPredictions) -> None:
    """Save test images with label and prediction: samples.jpg, a random choice, and worst.jpg, the highest losses."""
    samples, (logits, positions) = data.samples, predictions["test"]
    labels = torch.from_numpy(samples.get_labels())[positions]
    sample_indices = np.random.default_rng(run.recipe.seed).permutation(len(positions))[:MAX_SAMPLES_SHOWN]
    for name, indices in {
        "samples": sorted(sample_indices.tolist()),
        "worst": top_losses(logits, labels, MAX_TOP_LOSSES_SHOWN),
    }.items():
        shown_positions = positions[indices].tolist()
        paths = [samples.samples[position].path for position in shown_positions]
        captions = build_captions(logits[indices], labels[indices].tolist(), paths, samples.classes)
        save_image_grid(evaluation_pixels(data.images, shown_positions), captions, run.plots_directory / f"{name}.jpg")


def save_history(run: Run) -> None:
    """Save curves.png, if the run has epochs."""
    if rows := run.read_history():
        save_curves(rows, run.plots_directory / "curves.png")


def save_confusion(run: Run, data: Data, predictions: SplitPredictions) -> None:
    """Save confusion_matrix.png of the test images."""
    samples, (logits, positions) = data.samples, predictions["test"]
    predicted_labels, labels = logits.argmax(1), torch.from_numpy(samples.get_labels())[positions]
    confusion = confusion_matrix(predicted_labels, labels, len(samples.classes)).numpy()
    title = f"{int((predicted_labels == labels).sum())} of {len(labels)} test images correct"
    save_confusion_matrix(confusion, samples.classes, title, run.plots_directory / "confusion_matrix.png")


def write_report(run: Run, data: Data, model: Model) -> None:
    """Write report.html from the run directory. `model` has the weights of the best epoch."""
    samples, network = data.samples, model.network
    positions = {samples.samples[position].path: int(position) for position in samples.get_positions("test")}

    def load_pixels(paths: Sequence[str]) -> np.ndarray:
        return evaluation_pixels(data.images, [positions[path] for path in paths])

    reason = f"The weights are sharded over processes: thaw report {run.directory} draws it." * is_sharded(network)
    explained_model = ExplainedModel(
        network.eval(), model.preprocessing, samples.classes, model.stages, load_pixels, reason
    )
    run.write_report(render_run_report(run, explained_model))
