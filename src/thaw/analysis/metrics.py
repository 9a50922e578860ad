"""Logits and labels -> the numbers of `metrics.json`."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from thaw.analysis.calibration import reliability

Z95 = 1.959963984540054  # two-sided 95 % of the normal distribution


def metrics_of(logits: Tensor, labels: Tensor) -> dict[str, Any]:
    """For float logits [n, classes] and int64 labels [n]: accuracy with its interval, top-5, macro accuracy (mean
    recall over the classes that occur), macro F1 over them, mean cross-entropy, expected calibration error, count.
    Intervals are of 95 %."""
    predictions = logits.argmax(1)
    right = int((predictions == labels).sum())
    confusion = confusion_matrix(predictions, labels, logits.shape[1])
    recall, f1 = _recall_and_f1(confusion)
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices
    among_five = int((best == labels[:, None]).any(1).sum())
    probabilities = logits.double().softmax(1).max(1).values
    return {
        "accuracy": right / len(labels),
        "accuracy_ci95": list(wilson(right, len(labels))),
        "top5_accuracy": among_five / len(labels),
        "top5_accuracy_ci95": list(wilson(among_five, len(labels))),
        "macro_accuracy": recall.mean().item(),
        "macro_accuracy_ci95": list(_macro_interval(recall.mean().item(), confusion.sum(1))),
        "macro_f1": f1.mean().item(),
        "loss": F.cross_entropy(logits.double(), labels).item(),
        "ece": reliability(probabilities.numpy(), (predictions == labels).numpy()).error,
        "count": len(labels),
    }


def wilson(successes: float, count: float) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927): unlike the normal one it stays within 0..1 and keeps its level near
    the ends, where good classifiers are."""
    share, z2 = successes / count, Z95**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = Z95 / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def _macro_interval(share: float, counts: Tensor) -> tuple[float, float]:
    """As `wilson`, of so many images as give a plain share the variance that the mean over classes of `counts`
    [classes] images has where all are equally hard; of balanced classes these are all."""
    present = counts[counts > 0].double()
    effective = len(present) ** 2 / (1 / present).sum().item()
    return wilson(share * effective, effective)


def confusion_matrix(predictions: Tensor, labels: Tensor, classes: int) -> Tensor:
    """int64 [classes, classes]: row the label, column the prediction."""
    return torch.bincount(labels * classes + predictions, minlength=classes**2).view(classes, classes)


def _recall_and_f1(confusion: Tensor) -> tuple[Tensor, Tensor]:
    occurs = confusion.sum(1) > 0
    hits, labelled, predicted = confusion.diagonal().double(), confusion.sum(1), confusion.sum(0)
    return (hits / labelled)[occurs], (2 * hits / (labelled + predicted))[occurs]
