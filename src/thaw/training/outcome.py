"""What a finished training leaves: metrics, predictions, pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from thaw.analysis.metrics import confusion_matrix, metrics_of
from thaw.analysis.picked import as_they_are
from thaw.analysis.plots import save_confusion, save_curves
from thaw.analysis.sample_grid import save_samples
from thaw.analysis.worst import titled, worst_first
from thaw.data.batches import Images
from thaw.data.samples import Samples
from thaw.network.state import read_state
from thaw.training.feed import Feed
from thaw.training.history_file import read_history
from thaw.training.learner import Learner
from thaw.training.ranks import gathered, of_the_first
from thaw.training.run import Run
from thaw.training.sharding import load_state
from thaw.training.supply import Supply

SHOWN_SAMPLES, SHOWN_WORST = 32, 16
Predicted = dict[str, tuple[Tensor, Tensor]]  # split -> logits [n, classes], positions in the table [n]


def predicted(trainer: pl.Trainer, learner: Learner, feed: Feed, supply: Supply, best: Path) -> Predicted:
    """Logits of val and test images under the weights of `best`, which the first process reads: others may not see the
    disk that it lies on."""
    state = of_the_first(read_state(best) if trainer.is_global_zero else {})
    load_state(learner.network, {name.removeprefix("network."): value for name, value in state.items()})
    learner.network.requires_grad_(False)
    supply.settle()
    found: Any = trainer.predict(learner, list(feed.finals.values()))
    found = [found] if len(feed.finals) == 1 else found
    return {split: _in_order(batches) for split, batches in zip(feed.finals, found, strict=True)}


def _in_order(batches: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Batches of all processes as one, by position in the table."""
    everything = [batch for part in gathered(batches) for batch in part]
    logits, positions = torch.cat([one[0] for one in everything]), torch.cat([one[1] for one in everything])
    order = positions.argsort()
    return logits[order], positions[order]


def metrics_by_split(predictions: Predicted, labels: np.ndarray) -> dict[str, Any]:
    return {
        split: metrics_of(logits, torch.from_numpy(labels)[places]) for split, (logits, places) in predictions.items()
    }


def timing(run: Run, train_images: int, wall_s: float, cache_s: float) -> dict[str, float]:
    """Seconds of all epochs, also those before a resume; images a second while training, without validation. `cache_s`
    were spent on computing features once, which no epoch counts."""
    rows = read_history(run.directory / "history.csv")
    training = sum(float(row["train_seconds"]) for row in rows)
    return {
        "wall_s": round(wall_s, 3),
        "train_s": round(sum(float(row["seconds"]) for row in rows), 3),
        "images_per_s": round(train_images * len(rows) / training, 1) if training else 0.0,
        "cache_s": round(cache_s, 3),
    }


def draw(run: Run, samples: Samples, images: Images, predictions: Predicted) -> None:
    """curves.png, confusion_matrix.png of the test images, and of some of them with label and prediction samples.jpg,
    drawn by chance, and worst.jpg, those with the highest loss."""
    plots = run.directory / "plots"
    logits, positions = predictions["test"]
    guesses, labels = logits.argmax(1), torch.from_numpy(samples.labels())[positions]
    some = np.random.default_rng(run.recipe.seed).permutation(len(positions))[:SHOWN_SAMPLES]
    for name, chosen in {"samples": sorted(some.tolist()), "worst": worst_first(logits, labels, SHOWN_WORST)}.items():
        titles, wrong = titled(logits[chosen], labels[chosen].tolist(), samples.classes)
        save_samples(as_they_are(images, positions[chosen].tolist()), titles, wrong, plots / f"{name}.jpg")
    if rows := read_history(run.directory / "history.csv"):
        save_curves(rows, plots / "curves.png")
    confusion = confusion_matrix(guesses, labels, len(samples.classes)).numpy()
    title = f"{int((guesses == labels).sum())} of {len(labels)} test images right"
    save_confusion(confusion, samples.classes, title, plots / "confusion_matrix.png")
