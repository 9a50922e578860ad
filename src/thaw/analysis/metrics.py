"""Logits and labels -> the numbers of `metrics.json`."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Z95 = 1.959963984540054  # two-sided 95 % of the normal distribution


def metrics_of(logits: Tensor, labels: Tensor) -> dict[str, Any]:
    """For float logits [n, classes] and int64 labels [n]: accuracy with its interval, top-5, macro accuracy (mean
    recall over the classes that occur), macro F1 over them, mean cross-entropy, count."""
    predictions = logits.argmax(1)
    right = int((predictions == labels).sum())
    confusion = confusion_matrix(predictions, labels, logits.shape[1])
    recall, f1 = _recall_and_f1(confusion)
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices
    return {
        "accuracy": right / len(labels),
        "accuracy_ci95": list(wilson(right, len(labels))),
        "top5_accuracy": (best == labels[:, None]).any(1).double().mean().item(),
        "macro_accuracy": recall.mean().item(),
        "macro_f1": f1.mean().item(),
        "loss": F.cross_entropy(logits.double(), labels).item(),
        "count": len(labels),
    }


def wilson(successes: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927): unlike the normal one it stays within 0..1 and keeps its level near
    the ends, where good classifiers are."""
    share, z2 = successes / count, Z95**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = Z95 / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def confusion_matrix(predictions: Tensor, labels: Tensor, classes: int) -> Tensor:
    """int64 [classes, classes]: row the label, column the prediction."""
    return torch.bincount(labels * classes + predictions, minlength=classes**2).view(classes, classes)


def _recall_and_f1(confusion: Tensor) -> tuple[Tensor, Tensor]:
    occurs = confusion.sum(1) > 0
    hits, labelled, predicted = confusion.diagonal().double(), confusion.sum(1), confusion.sum(0)
    return (hits / labelled)[occurs], (2 * hits / (labelled + predicted))[occurs]
