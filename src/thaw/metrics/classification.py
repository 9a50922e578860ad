"""Compute the metrics of `metrics.json`, and the predictions with the highest losses, from logits and labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from thaw.metrics.calibration import compute_reliability
from thaw.metrics.per_class import wilson_interval


def classification_metrics(logits: Tensor, labels: Tensor) -> dict[str, Any]:
    """Compute accuracy, top-5 accuracy, macro accuracy, macro F1, cross-entropy, expected calibration error and count.

    `logits` are float [n, classes], `labels` int64 [n]. Macro accuracy is the mean recall; it and macro F1 are means
    over the classes that occur. Keys ending with `_ci95` are 95 % confidence intervals.
    """
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


def _compute_macro_interval(proportion: float, counts: Tensor) -> tuple[float, float]:
    """Return the Wilson interval of a mean over classes with `counts` [classes] images.

    Its number of images is the one that gives a proportion the variance of this mean if all classes are equally hard;
    for balanced classes that is the number of all images.
    """
    present_counts = counts[counts > 0].double()
    effective_count = len(present_counts) ** 2 / (1 / present_counts).sum().item()
    return wilson_interval(proportion * effective_count, effective_count)


def confusion_matrix(predictions: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return int64 [classes, classes] with labels as rows and predictions as columns."""
    return torch.bincount(labels * num_classes + predictions, minlength=num_classes**2).view(num_classes, num_classes)


def _compute_recall_and_f1(confusion: Tensor) -> tuple[Tensor, Tensor]:
    is_present = confusion.sum(1) > 0
    true_positives, label_counts, prediction_counts = confusion.diagonal().double(), confusion.sum(1), confusion.sum(0)
    recall, f1 = true_positives / label_counts, 2 * true_positives / (label_counts + prediction_counts)
    return recall[is_present], f1[is_present]


def top_losses(logits: Tensor, labels: Tensor, k: int) -> list[int]:
    """Return the rows of `logits` [n, classes] with the highest cross-entropy to `labels` [n], highest first."""
    losses = F.cross_entropy(logits.double(), labels, reduction="none")
    return losses.argsort(descending=True, stable=True)[:k].tolist()
