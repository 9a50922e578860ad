"""Logits and labels -> the numbers of `metrics.json`."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from thaw.metrics.calibration import compute_reliability

Z95 = 1.959963984540054  # two-sided 95 % of the normal distribution


def classification_metrics(logits: Tensor, labels: Tensor) -> dict[str, Any]:
    """For float logits [n, classes] and int64 labels [n]: accuracy with its interval, top-5, macro accuracy (mean
    recall over the classes that occur), macro F1 over them, mean cross-entropy, expected calibration error, count.
    Intervals are of 95 %."""
    predictions = logits.argmax(1)
    correct = int((predictions == labels).sum())
    confusion = confusion_matrix(predictions, labels, logits.shape[1])
    recall, f1 = _compute_recall_and_f1(confusion)
    top5_classes = logits.topk(min(5, logits.shape[1]), dim=1).indices
    top5_correct = int((top5_classes == labels[:, None]).any(1).sum())
    probabilities = logits.double().softmax(1).max(1).values
    return {
        "accuracy": correct / len(labels),
        "accuracy_ci95": list(wilson_interval(correct, len(labels))),
        "top5_accuracy": top5_correct / len(labels),
        "top5_accuracy_ci95": list(wilson_interval(top5_correct, len(labels))),
        "macro_accuracy": recall.mean().item(),
        "macro_accuracy_ci95": list(_compute_macro_interval(recall.mean().item(), confusion.sum(1))),
        "macro_f1": f1.mean().item(),
        "loss": F.cross_entropy(logits.double(), labels).item(),
        "ece": compute_reliability(probabilities.numpy(), (predictions == labels).numpy()).ece,
        "count": len(labels),
    }


def wilson_interval(successes: float, count: float) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927): unlike the normal one it stays within 0..1 and keeps its level near
    the ends, where good classifiers are."""
    proportion, z2 = successes / count, Z95**2
    centre = (proportion + z2 / (2 * count)) / (1 + z2 / count)
    half_width = Z95 / (1 + z2 / count) * math.sqrt(proportion * (1 - proportion) / count + z2 / (4 * count**2))
    return max(0.0, centre - half_width), min(1.0, centre + half_width)


def _compute_macro_interval(proportion: float, counts: Tensor) -> tuple[float, float]:
    """As `wilson`, of so many images as give a plain share the variance that the mean over classes of `counts`
    [classes] images has where all are equally hard; of balanced classes these are all."""
    present_counts = counts[counts > 0].double()
    effective_count = len(present_counts) ** 2 / (1 / present_counts).sum().item()
    return wilson_interval(proportion * effective_count, effective_count)


def confusion_matrix(predictions: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """int64 [classes, classes]: row the label, column the prediction."""
    return torch.bincount(labels * num_classes + predictions, minlength=num_classes**2).view(num_classes, num_classes)


def _compute_recall_and_f1(confusion: Tensor) -> tuple[Tensor, Tensor]:
    is_present = confusion.sum(1) > 0
    true_positives, label_counts, prediction_counts = confusion.diagonal().double(), confusion.sum(1), confusion.sum(0)
    return (true_positives / label_counts)[is_present], (2 * true_positives / (label_counts + prediction_counts))[
        is_present
    ]
