"""The predictions that are furthest from the label."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor
from torch.nn import functional as F


def worst_first(logits: Tensor, labels: Tensor, most: int) -> list[int]:
    """Rows of logits [n, classes] with the highest cross-entropy to labels [n], highest first."""
    losses = F.cross_entropy(logits.double(), labels, reduction="none")
    return losses.argsort(descending=True, stable=True)[:most].tolist()


def titled(logits: Tensor, labels: Iterable[int], classes: Sequence[str]) -> tuple[list[str], list[bool]]:
    """For each row of logits what a grid writes above its picture, label, prediction and its probability; and whether
    it is wrong."""
    best = logits.softmax(1).max(1)
    titles, wrong = list[str](), list[bool]()
    for label, guess, probability in zip(labels, best.indices.tolist(), best.values.tolist(), strict=True):
        wrong.append(label != guess)
        told = classes[label] if label == guess else f"{classes[label]}, not {classes[guess]}"
        titles.append(f"{told} {probability:.2f}")
    return titles, wrong
