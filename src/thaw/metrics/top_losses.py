"""The predictions that are furthest from the label."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor
from torch.nn import functional as F


def top_losses(logits: Tensor, labels: Tensor, k: int) -> list[int]:
    """Rows of logits [n, classes] with the highest cross-entropy to labels [n], highest first."""
    losses = F.cross_entropy(logits.double(), labels, reduction="none")
    return losses.argsort(descending=True, stable=True)[:k].tolist()


def captions(logits: Tensor, labels: Iterable[int], classes: Sequence[str]) -> tuple[list[str], list[bool]]:
    """For each row of logits what a grid writes above its picture, label, prediction and its probability; and whether
    it is wrong."""
    top = logits.softmax(1).max(1)
    texts, wrong_flags = list[str](), list[bool]()
    for label, prediction, probability in zip(labels, top.indices.tolist(), top.values.tolist(), strict=True):
        wrong_flags.append(label != prediction)
        text = classes[label] if label == prediction else f"{classes[label]}, not {classes[prediction]}"
        texts.append(f"{text} {probability:.2f}")
    return texts, wrong_flags
