"""What a finished training leaves: metrics, predictions, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from thaw.data.batches import ImageDataset
from thaw.data.preprocessing import Preprocessing
from thaw.data.samples import Samples
from thaw.metrics.classification import classification_metrics, confusion_matrix
from thaw.metrics.top_losses import captions, top_losses
from thaw.models.cost import StageCost
from thaw.models.network import Network
from thaw.models.state_dict import read_state
from thaw.runs.run import Run
from thaw.training.dataloaders import BatchSource, DataLoaders
from thaw.training.distributed.collectives import all_gather_object, broadcast
from thaw.training.distributed.fsdp import is_sharded, load_full_state_dict
from thaw.training.module import ClassificationModule
from thaw.visualization.plots.example_images import evaluation_pixels
from thaw.visualization.plots.image_grid import save_image_grid
from thaw.visualization.plots.training import save_confusion_matrix, save_curves
from thaw.visualization.reports.run import ExplainedModel, render_run_report

MAX_SAMPLES_SHOWN, MAX_TOP_LOSSES_SHOWN = 32, 16
SplitPredictions = dict[str, tuple[Tensor, Tensor]]  # split -> logits [n, classes], positions in the table [n]


def predict_splits(
    trainer: pl.Trainer,
    module: ClassificationModule,
    loaders: DataLoaders,
    batch_source: BatchSource,
    checkpoint_path: Path,
) -> SplitPredictions:
    """Logits of val and test images under the weights of `best`, which the first process reads: others may not see the
    disk that it lies on."""
    state = broadcast(read_state(checkpoint_path) if trainer.is_global_zero else {})
    load_full_state_dict(module.network, {name.removeprefix("network."): value for name, value in state.items()})
    module.network.requires_grad_(False)
    batch_source.use_cached()
    outputs: Any = trainer.predict(module, list(loaders.predict_loaders.values()))
    outputs = [outputs] if len(loaders.predict_loaders) == 1 else outputs
    return {split: _gather_sorted(batches) for split, batches in zip(loaders.predict_loaders, outputs, strict=True)}


def _gather_sorted(batches: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Batches of all processes as one, by position in the table."""
    all_batches = [batch for rank_batches in all_gather_object(batches) for batch in rank_batches]
    logits, positions = (
        torch.cat([output[0] for output in all_batches]),
        torch.cat([output[1] for output in all_batches]),
    )
    order = positions.argsort()
    return logits[order], positions[order]


def compute_split_metrics(predictions: SplitPredictions, labels: np.ndarray) -> dict[str, Any]:
    return {
        split: classification_metrics(logits, torch.from_numpy(labels)[positions])
        for split, (logits, positions) in predictions.items()
    }


def compute_timing(run: Run, num_train_images: int, wall_s: float, cache_s: float) -> dict[str, float]:
    """Seconds of all epochs, also those before a resume; images a second while training, without validation. `cache_s`
    were spent on computing features once, which no epoch counts."""
    rows = run.read_history()
    train_seconds = sum(float(row["train_seconds"]) for row in rows)
    return {
        "wall_s": round(wall_s, 3),
        "train_s": round(sum(float(row["seconds"]) for row in rows), 3),
        "images_per_s": round(num_train_images * len(rows) / train_seconds, 1) if train_seconds else 0.0,
        "cache_s": round(cache_s, 3),
    }


def save_plots(run: Run, samples: Samples, images: ImageDataset, predictions: SplitPredictions) -> None:
    """curves.png, confusion_matrix.png of the test images, and of some of them with label and prediction samples.jpg,
    drawn by chance, and worst.jpg, those with the highest loss."""
    plots_directory = run.plots_directory
    logits, positions = predictions["test"]
    predicted_labels, labels = logits.argmax(1), torch.from_numpy(samples.get_labels())[positions]
    sample_indices = np.random.default_rng(run.recipe.seed).permutation(len(positions))[:MAX_SAMPLES_SHOWN]
    for name, indices in {
        "samples": sorted(sample_indices.tolist()),
        "worst": top_losses(logits, labels, MAX_TOP_LOSSES_SHOWN),
    }.items():
        titles, is_wrong = captions(logits[indices], labels[indices].tolist(), samples.classes)
        save_image_grid(
            evaluation_pixels(images, positions[indices].tolist()), titles, is_wrong, plots_directory / f"{name}.jpg"
        )
    if rows := run.read_history():
        save_curves(rows, plots_directory / "curves.png")
    confusion = confusion_matrix(predicted_labels, labels, len(samples.classes)).numpy()
    title = f"{int((predicted_labels == labels).sum())} of {len(labels)} test images right"
    save_confusion_matrix(confusion, samples.classes, title, plots_directory / "confusion_matrix.png")


def write_report(
    run: Run,
    network: Network,
    samples: Samples,
    images: ImageDataset,
    preprocessing: Preprocessing,
    stages: Sequence[StageCost],
) -> None:
    """Of what lies in the run directory, and of `network` with the weights that are kept, on the CPU."""
    positions = {samples.samples[position].path: int(position) for position in samples.get_positions("test")}

    def load_pixels(paths: Sequence[str]) -> np.ndarray:
        return evaluation_pixels(images, [positions[path] for path in paths])

    unavailable_reason = (
        f"Each process held a piece of the weights: thaw report {run.directory} draws it." * is_sharded(network)
    )
    model = ExplainedModel(network.eval(), preprocessing, samples.classes, stages, load_pixels, unavailable_reason)
    run.write_report(render_run_report(run, model))
