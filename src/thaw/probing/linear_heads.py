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

from thaw.probing.trial import LINEAR_HEAD_METHOD, FeatureSet, LinearModel, ProbeTrial

MOMENTUM = 0.9
ROWS_PER_CHUNK = 256  # of validation images: their logits under all heads are classes * heads numbers each
MIN_STEPS_PER_EPOCH, BATCH_SIZE_RANGE = 12, (16, 256)  # an epoch, images
# Multiply-adds of a step under which threads wait for each other: 108 heads of two classes, 700,000, took 0.06 s on one
# thread, and on two of a machine that had other work 1.9 s.
MIN_MULTIPLY_ADDS_FOR_THREADS = 2**24


@dataclass(frozen=True)
class Setting:
    """How one head trains. `seed` decides its first weights."""

    learning_rate: float
    weight_decay: float
    seed: int

    def to_dict(self) -> dict[str, float]:
        return {"learning rate": self.learning_rate, "weight decay": self.weight_decay, "seed": self.seed}


@dataclass(frozen=True)
class LinearHeads:
    """`values` is float32 [rank + 1, classes, heads]: weights, and in the last row the biases."""

    settings: tuple[Setting, ...]
    values: Tensor

    def compute_logits(self, features: Tensor) -> Tensor:
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

    def list_settings(self) -> tuple[Setting, ...]:
        """The strongest weight decay first."""
        decays = sorted(self.weight_decays, reverse=True)
        return tuple(
            Setting(*combination) for combination in itertools.product(self.learning_rates, decays, range(self.seeds))
        )


def fit_linear_heads(
    train: FeatureSet, val: FeatureSet, num_classes: int, grid: Grid, seed: int, width: int, device: torch.device
) -> list[ProbeTrial]:
    """One a head; `seed` and `width` are those of `trained_heads`."""
    start_time, settings = time.perf_counter(), grid.list_settings()
    features, labels = torch.from_numpy(train.features).to(device), torch.from_numpy(train.labels).to(device)
    batch_size = compute_batch_size(len(labels))
    with _limit_threads(batch_size * features.shape[1] * num_classes * len(settings)):
        heads = train_linear_heads(features, labels, num_classes, settings, grid.epochs, batch_size, seed, width)
    accuracies, losses = _evaluate_heads(heads, torch.from_numpy(val.features), torch.from_numpy(val.labels))
    seconds = (time.perf_counter() - start_time) / len(settings)
    values = heads.values.cpu().numpy()
    return [
        ProbeTrial(
            LINEAR_HEAD_METHOD,
            setting.to_dict(),
            accuracy,
            loss,
            seconds,
            LinearModel(values[:-1, :, head_index].T, values[-1, :, head_index]),
        )
        for head_index, (setting, accuracy, loss) in enumerate(zip(settings, accuracies, losses, strict=True))
    ]


@contextmanager
def _limit_threads(multiply_adds: int) -> Iterator[None]:
    """One alone for a step of few."""
    previous_threads = torch.get_num_threads()
    torch.set_num_threads(previous_threads if multiply_adds >= MIN_MULTIPLY_ADDS_FOR_THREADS else 1)
    try:
        yield
    finally:
        torch.set_num_threads(previous_threads)


def compute_batch_size(num_images: int) -> int:
    """For so many train images."""
    min_size, max_size = BATCH_SIZE_RANGE
    return min(max(num_images // MIN_STEPS_PER_EPOCH, min_size), max_size)


def _evaluate_heads(heads: LinearHeads, features: Tensor, labels: Tensor) -> tuple[list[float], list[float]]:
    """Accuracy and mean cross-entropy by head."""
    num_correct, loss_sum = torch.zeros(2, len(heads.settings), device=heads.values.device)
    for start in range(0, len(labels), ROWS_PER_CHUNK):
        chunk = slice(start, start + ROWS_PER_CHUNK)
        logits, targets = (
            heads.compute_logits(features[chunk].to(heads.values)),
            labels[chunk].to(num_correct.device)[:, None],
        )
        num_correct += (logits.argmax(1) == targets).sum(0)
        loss_sum += F.cross_entropy(logits, targets.expand(-1, len(num_correct)), reduction="none").sum(0)
    return (num_correct.double() / len(labels)).tolist(), (loss_sum / len(labels)).tolist()


def train_linear_heads(
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    settings: Sequence[Setting],
    epochs: int,
    batch_size: int,
    seed: int,
    width: int,
) -> LinearHeads:
    """One head a setting, by SGD with momentum and a cosine schedule on the mean cross-entropy of float32 `features`
    [n, rank] and int64 `labels` [n]. The order of the images follows from `seed` and is the same for all heads; `width`
    is what the features had before they were rotated, which the size of the first weights goes by.

    All heads lie side by side in one matrix [rank + 1, (classes - 1) * heads]: a step is two matrix products and the
    gradient of softmax and cross-entropy by formula. Classes start with weights of sum 0, which softmax cannot tell
    from others, and keep that sum, as their gradients have it: so the last class is minus the others and not computed,
    half of the work for two classes. Biases start at 0 and have no weight decay.
    """
    inputs = torch.cat([features, features.new_ones(len(features), 1)], 1)
    targets = F.one_hot(labels, num_classes)[:, :-1, None].to(features)
    values = _init_values(features.shape[1], num_classes, settings, width).to(features)
    momentum_buffer = torch.zeros_like(values)
    rates = features.new_tensor([setting.learning_rate for setting in settings]).repeat(num_classes - 1)
    decays = features.new_tensor([setting.weight_decay for setting in settings]).repeat(num_classes - 1)
    for factor, batch_inputs, batch_targets in _iter_steps(inputs, targets, epochs, batch_size, seed):
        logits = _append_last_class(torch.mm(batch_inputs, values).view(len(batch_inputs), num_classes - 1, -1))
        error = (logits.softmax(1)[:, :-1] - batch_targets).view(len(batch_inputs), -1)
        momentum_buffer.addmm_(batch_inputs.T, error, beta=MOMENTUM, alpha=1 / len(batch_inputs))
        momentum_buffer[:-1].addcmul_(values[:-1], decays)
        values.addcmul_(momentum_buffer, rates, value=-factor)
    return LinearHeads(tuple(settings), _append_last_class(values.view(len(values), num_classes - 1, -1)))


def _append_last_class(values: Tensor) -> Tensor:
    """[n, classes, heads] of [n, classes - 1, heads]: the last class is minus the others."""
    return torch.cat([values, -values.sum(1, keepdim=True)], 1)


def _init_values(rank: int, num_classes: int, settings: Sequence[Setting], width: int) -> Tensor:
    """Weights of the variance that torch gives those of a layer of `width` inputs, seen from the features' axes: normal
    ones, as these stay so from any axes; less the mean over the classes, without the last class."""
    seeds = {setting.seed for setting in settings}
    weights_by_seed = {
        seed: torch.randn(rank, num_classes, generator=torch.Generator().manual_seed(seed)) for seed in seeds
    }
    weights = torch.stack([weights_by_seed[setting.seed] for setting in settings], 2) / math.sqrt(3 * width)
    centered_weights = (weights - weights.mean(1, keepdim=True))[:, :-1]
    return torch.cat([centered_weights, torch.zeros(1, num_classes - 1, len(settings))]).view(rank + 1, -1)


def _iter_steps(
    inputs: Tensor, targets: Tensor, epochs: int, batch_size: int, seed: int
) -> Iterator[tuple[float, Tensor, Tensor]]:
    """The schedule's factor, inputs and targets of every step. Batches of an epoch differ by one image at most."""
    num_batches = -(-len(inputs) // batch_size)
    rng = torch.Generator().manual_seed(seed)
    for epoch in range(epochs):
        permutation = torch.randperm(len(inputs), generator=rng).to(inputs.device)
        minibatches = zip(
            inputs[permutation].tensor_split(num_batches), targets[permutation].tensor_split(num_batches), strict=True
        )
        for batch_index, (batch_inputs, batch_targets) in enumerate(minibatches):
            progress = (epoch * num_batches + batch_index) / (epochs * num_batches)
            yield 0.5 * (1 + math.cos(math.pi * progress)), batch_inputs, batch_targets
