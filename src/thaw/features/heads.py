"""Linear heads by the hundred: a grid of learning rates, weight decays and starts, trained as one computation."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from thaw.features.scaling import Linear
from thaw.features.trial import HEAD, Trial, Vectors

MOMENTUM = 0.9
ROWS_AT_ONCE = 256  # of validation images: their logits under all heads are classes * heads numbers each
FEWEST_STEPS, BATCHES = 12, (16, 256)  # an epoch, images
# Multiply-adds of a step under which threads wait for each other: 108 heads of two classes, 700,000, took 0.06 s on one
# thread, and on two of a machine that had other work 1.9 s.
WORTH_SHARING = 2**24


@dataclass(frozen=True)
class Setting:
    """How one head trains. `seed` decides its first weights."""

    learning_rate: float
    weight_decay: float
    seed: int

    def named(self) -> dict[str, float]:
        return {"learning rate": self.learning_rate, "weight decay": self.weight_decay, "seed": self.seed}


@dataclass(frozen=True)
class Heads:
    """`values` is float32 [rank + 1, classes, heads]: weights, and in the last row the biases."""

    settings: tuple[Setting, ...]
    values: Tensor

    def logits(self, features: Tensor) -> Tensor:
        """[n, classes, heads] of [n, rank]."""
        products: Tensor = torch.tensordot(features, self.values[:-1], 1)
        return products + self.values[-1]


@dataclass(frozen=True)
class Grid:
    """Every combination is a head; `seeds` counts the starts. Rates are those of standardised features, for batches of
    a twelfth of the images, 16 at least and 256 at most: an epoch of fewer steps would make the low rates idle."""

    learning_rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
    weight_decays: tuple[float, ...] = (0.0, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    seeds: int = 3
    epochs: int = 30

    def settings(self) -> tuple[Setting, ...]:
        """The strongest weight decay first."""
        decays = sorted(self.weight_decays, reverse=True)
        return tuple(Setting(*one) for one in itertools.product(self.learning_rates, decays, range(self.seeds)))


def head_trials(
    train: Vectors, val: Vectors, classes: int, grid: Grid, seed: int, width: int, device: torch.device
) -> list[Trial]:
    """One a head; `seed` and `width` are those of `trained_heads`."""
    started, settings = time.perf_counter(), grid.settings()
    features, labels = torch.from_numpy(train.features).to(device), torch.from_numpy(train.labels).to(device)
    batch = batch_size(len(labels))
    with _threads(batch * features.shape[1] * classes * len(settings)):
        heads = trained_heads(features, labels, classes, settings, grid.epochs, batch, seed, width)
    accuracies, losses = _judged(heads, torch.from_numpy(val.features), torch.from_numpy(val.labels))
    seconds = (time.perf_counter() - started) / len(settings)
    values = heads.values.cpu().numpy()
    return [
        Trial(HEAD, one.named(), accuracy, loss, seconds, Linear(values[:-1, :, place].T, values[-1, :, place]))
        for place, (one, accuracy, loss) in enumerate(zip(settings, accuracies, losses, strict=True))
    ]


@contextmanager
def _threads(multiply_adds: int) -> Iterator[None]:
    """One alone for a step of few."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if multiply_adds >= WORTH_SHARING else 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def batch_size(count: int) -> int:
    """For so many train images."""
    least, most = BATCHES
    return min(max(count // FEWEST_STEPS, least), most)


def _judged(heads: Heads, features: Tensor, labels: Tensor) -> tuple[list[float], list[float]]:
    """Accuracy and mean cross-entropy by head."""
    right, loss = torch.zeros(2, len(heads.settings), device=heads.values.device)
    for start in range(0, len(labels), ROWS_AT_ONCE):
        some = slice(start, start + ROWS_AT_ONCE)
        logits, wanted = heads.logits(features[some].to(heads.values)), labels[some].to(right.device)[:, None]
        right += (logits.argmax(1) == wanted).sum(0)
        loss += F.cross_entropy(logits, wanted.expand(-1, len(right)), reduction="none").sum(0)
    return (right.double() / len(labels)).tolist(), (loss / len(labels)).tolist()


def trained_heads(
    features: Tensor,
    labels: Tensor,
    classes: int,
    settings: Sequence[Setting],
    epochs: int,
    batch_size: int,
    seed: int,
    width: int,
) -> Heads:
    """One head a setting, by SGD with momentum and a cosine schedule on the mean cross-entropy of float32 `features`
    [n, rank] and int64 `labels` [n]. The order of the images follows from `seed` and is the same for all heads; `width`
    is what the features had before they were rotated, which the size of the first weights goes by.

    All heads lie side by side in one matrix [rank + 1, (classes - 1) * heads]: a step is two matrix products and the
    gradient of softmax and cross-entropy by formula. Classes start with weights of sum 0, which softmax cannot tell
    from others, and keep that sum, as their gradients have it: so the last class is minus the others and not computed,
    half of the work for two classes. Biases start at 0 and have no weight decay.
    """
    inputs = torch.cat([features, features.new_ones(len(features), 1)], 1)
    targets = F.one_hot(labels, classes)[:, :-1, None].to(features)
    values = _first_values(features.shape[1], classes, settings, width).to(features)
    moment = torch.zeros_like(values)
    rates = features.new_tensor([one.learning_rate for one in settings]).repeat(classes - 1)
    decays = features.new_tensor([one.weight_decay for one in settings]).repeat(classes - 1)
    for factor, images, wanted in _steps(inputs, targets, epochs, batch_size, seed):
        logits = _with_last(torch.mm(images, values).view(len(images), classes - 1, -1))
        error = (logits.softmax(1)[:, :-1] - wanted).view(len(images), -1)
        moment.addmm_(images.T, error, beta=MOMENTUM, alpha=1 / len(images))
        moment[:-1].addcmul_(values[:-1], decays)
        values.addcmul_(moment, rates, value=-factor)
    return Heads(tuple(settings), _with_last(values.view(len(values), classes - 1, -1)))


def _with_last(values: Tensor) -> Tensor:
    """[n, classes, heads] of [n, classes - 1, heads]: the last class is minus the others."""
    return torch.cat([values, -values.sum(1, keepdim=True)], 1)


def _first_values(rank: int, classes: int, settings: Sequence[Setting], width: int) -> Tensor:
    """Weights of the variance that torch gives those of a layer of `width` inputs, seen from the features' axes: normal
    ones, as these stay so from any axes; less the mean over the classes, without the last class."""
    seeds = {one.seed for one in settings}
    drawn = {seed: torch.randn(rank, classes, generator=torch.Generator().manual_seed(seed)) for seed in seeds}
    weights = torch.stack([drawn[one.seed] for one in settings], 2) / math.sqrt(3 * width)
    free = (weights - weights.mean(1, keepdim=True))[:, :-1]
    return torch.cat([free, torch.zeros(1, classes - 1, len(settings))]).view(rank + 1, -1)


def _steps(
    inputs: Tensor, targets: Tensor, epochs: int, batch_size: int, seed: int
) -> Iterator[tuple[float, Tensor, Tensor]]:
    """The schedule's factor, inputs and targets of every step. Batches of an epoch differ by one image at most."""
    batches = -(-len(inputs) // batch_size)
    dice = torch.Generator().manual_seed(seed)
    for epoch in range(epochs):
        order = torch.randperm(len(inputs), generator=dice).to(inputs.device)
        parts = zip(inputs[order].tensor_split(batches), targets[order].tensor_split(batches), strict=True)
        for number, (images, wanted) in enumerate(parts):
            progress = (epoch * batches + number) / (epochs * batches)
            yield 0.5 * (1 + math.cos(math.pi * progress)), images, wanted
