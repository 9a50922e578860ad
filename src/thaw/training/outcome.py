"""What a finished training leaves: metrics, predictions, pictures, HPARAMS."""

from __future__ import annotations

import csv
import io
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
from thaw.data.batches import Images
from thaw.data.samples import Samples
from thaw.network.state import read_state
from thaw.training.feed import Feed
from thaw.training.files import write_text
from thaw.training.history import read_history
from thaw.training.learner import Learner
from thaw.training.ranks import gathered, of_the_first
from thaw.training.run import Run
from thaw.training.sharding import load_state
from thaw.training.supply import Supply

SHOWN_SAMPLES = 32
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


def write_predictions(file: Path, samples: Samples, logits: Tensor, positions: Tensor) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label", "prediction", "probability"])
    probabilities, predictions = logits.softmax(1).max(1)
    for position, prediction, probability in zip(
        positions.tolist(), predictions.tolist(), probabilities.tolist(), strict=True
    ):
        sample = samples.samples[position]
        writer.writerow([sample.path, samples.classes[sample.label], samples.classes[prediction], f"{probability:.6f}"])
    write_text(file, text.getvalue())


def draw(run: Run, samples: Samples, images: Images, predictions: Predicted) -> None:
    """curves.png, confusion_matrix.png of the test images, samples.png: test images with label and prediction."""
    plots = run.directory / "plots"
    rows = read_history(run.directory / "history.csv")
    if rows:
        save_curves(rows, plots / "curves.png")
    logits, positions = predictions["test"]
    guesses, labels = logits.argmax(1), torch.from_numpy(samples.labels())[positions]
    confusion = confusion_matrix(guesses, labels, len(samples.classes)).numpy()
    title = f"{int((guesses == labels).sum())} of {len(labels)} test images right"
    save_confusion(confusion, samples.classes, title, plots / "confusion_matrix.png")
    _draw_samples(plots / "samples.png", samples, images, guesses, positions, run.recipe.seed)


def _draw_samples(file: Path, samples: Samples, images: Images, guesses: Tensor, positions: Tensor, seed: int) -> None:
    chosen = sorted(np.random.default_rng(seed).permutation(len(positions))[:SHOWN_SAMPLES].tolist())
    shown, titles, wrong = [int(positions[place]) for place in chosen], [], []
    for position, guessed in zip(shown, guesses[chosen].tolist(), strict=True):
        label, guess = samples.classes[samples.samples[position].label], samples.classes[guessed]
        titles.append(label if label == guess else f"{label}, not {guess}")
        wrong.append(label != guess)
    save_samples(as_they_are(images, shown), titles, wrong, file)


def log_hyperparameters(trainer: pl.Trainer, run: Run, metrics: dict[str, Any]) -> None:
    """TensorBoard's HPARAMS tab shows metrics only from one call with their real values."""
    finals = {
        f"final/{split}_{name}": metrics[split][name]
        for split in metrics
        if split != "timing"
        for name in ("accuracy", "loss")
    }
    assert trainer.logger is not None
    trainer.logger.log_hyperparams(flat(run.recipe.plain()), finals)
    trainer.logger.save()
    trainer.logger.finalize("success")


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots; lists as text, as the HPARAMS tab takes scalars and text alone."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        result.update(flat(value, f"{name}.") if isinstance(value, dict) else {name: _scalar(value)})
    return result


def _scalar(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else str(value)
