"""Compute the metrics of `metrics.json`, and the predictions with the highest losses, from logits and labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from thaw.metrics.bootstrap import compute_mean_interval, sum_over_units
from thaw.metrics.calibration import compute_reliability
from thaw.metrics.intervals import compute_weighted_metrics
from thaw.metrics.per_class import wilson_interval


def classification_metrics(logits: Tensor, labels: Tensor, groups: np.ndarray | None = None) -> dict[str, Any]:
    """Compute accuracy, top-5 accuracy, macro accuracy, macro F1, AUROC, average precision, Cohen's kappa,
    cross-entropy, expected calibration error and count.

    `logits` are float [n, classes], `labels` int64 [n], `groups` int64 [n] if the images belong to groups. Macro
    accuracy is the mean recall, which scikit-learn calls balanced accuracy: `balanced_accuracy` repeats its value and
    its interval. Keys ending with `_ci95` are 95 % confidence intervals: Wilson's of accuracies, or a bootstrap over
    groups; a bootstrap of the others, see `compute_weighted_metrics`. What is not defined is left out.
    `groups`, their number, is in the result if the images belong to groups.
    """
    predictions = logits.argmax(1)
    correct = int((predictions == labels).sum())
    confusion = confusion_matrix(predictions, labels, logits.shape[1])
    recall = _compute_recall(confusion)
    top5_classes = logits.topk(min(5, logits.shape[1]), dim=1).indices
    top5_correct = int((top5_classes == labels[:, None]).any(1).sum())
    probabilities = logits.double().softmax(1)
    metrics = {
        "accuracy": correct / len(labels),
        "accuracy_ci95": list(wilson_interval(correct, len(labels))),
        "top5_accuracy": top5_correct / len(labels),
        "top5_accuracy_ci95": list(wilson_interval(top5_correct, len(labels))),
        "macro_accuracy": recall.mean().item(),
        "macro_accuracy_ci95": list(_compute_macro_interval(recall.mean().item(), confusion.sum(1))),
        **compute_weighted_metrics(probabilities.numpy(), labels.numpy(), groups),
        "loss": F.cross_entropy(logits.double(), labels).item(),
        "ece": compute_reliability(probabilities.max(1).values.numpy(), (predictions == labels).numpy()).ece,
        "count": len(labels),
    }
    if groups is not None:
        metrics |= _compute_grouped_intervals(metrics, logits, labels, groups)
    return metrics | {f"balanced_accuracy{suffix}": metrics[f"macro_accuracy{suffix}"] for suffix in ("", "_ci95")}


def _compute_grouped_intervals(
    metrics: Mapping[str, Any], logits: Tensor, labels: Tensor, groups: np.ndarray
) -> dict[str, Any]:
    """Return the number of groups, and the intervals of accuracies over them. Where groups are too few or all agree,
    Wilson's interval counts each group as one image."""
    top5_classes = logits.topk(min(5, logits.shape[1]), dim=1).indices
    correct_by_name = {
        "accuracy": logits.argmax(1) == labels,
        "top5_accuracy": (top5_classes == labels[:, None]).any(1),
    }
    num_groups = len(np.unique(groups))
    macro_interval = metrics.get("balanced_accuracy_ci95") or list(
        wilson_interval(metrics["macro_accuracy"] * num_groups, num_groups)
    )
    intervals: dict[str, Any] = {"macro_accuracy_ci95": macro_interval, "groups": num_groups}
    for name, correct in correct_by_name.items():
        units = sum_over_units(np.arange(len(labels)), groups, correct.double().numpy())
        interval = compute_mean_interval(units) or wilson_interval(units.mean * num_groups, num_groups)
        intervals[f"{name}_ci95"] = [max(0.0, interval[0]), min(1.0, interval[1])]
    return intervals


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


def _compute_recall(confusion: Tensor) -> Tensor:
    """Return the recall of each class that occurs, float64 [classes that occur]."""
    label_counts = confusion.sum(1)
    is_present = label_counts > 0
    return confusion.diagonal()[is_present].double() / label_counts[is_present]


def top_losses(logits: Tensor, labels: Tensor, k: int) -> list[int]:
    """Return the rows of `logits` [n, classes] with the highest cross-entropy to `labels` [n], highest first."""
    losses = F.cross_entropy(logits.double(), labels, reduction="none")
    return losses.argsort(descending=True, stable=True)[:k].tolist()
