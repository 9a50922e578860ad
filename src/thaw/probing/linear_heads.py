"""Train hundreds of linear heads at once: a grid of learning rates, weight decays and seeds as one computation."""

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

from thaw.probing.trial import LINEAR_HEAD_METHOD, FeatureSet, LinearModel, ProbeData, ProbeTrial

MOMENTUM = 0.9
ROWS_PER_CHUNK = 256  # of validation images, whose logits are classes * heads numbers each
MIN_STEPS_PER_EPOCH, BATCH_SIZE_RANGE = 12, (16, 256)
# With fewer multiply-adds per step, threads wait for each other: 108 heads of two classes, 700,000 multiply-adds, took
# 0.06 s on one thread, and 1.9 s on the two of a busy machine.
MIN_MULTIPLY_ADDS_FOR_THREADS = 2**24


@dataclass(frozen=True)
class Setting:
    """How one head trains. `seed` determines its initial weights."""

    learning_rate: float
    weight_decay: float
    seed: int

    def to_dict(self) -> dict[str, float]:
        """Return the setting as a trial records it."""
        return {"learning rate": self.learning_rate, "weight decay": self.weight_decay, "seed": self.seed}


@dataclass(frozen=True)
class HeadGrid:
    """The heads to train: one for each combination of learning rate, weight decay and seed.

    The learning rates suit standardized features and batches of a twelfth of the images, at least 16 and at most 256:
    with fewer steps per epoch, low rates would hardly change the weights.
    """

    learning_rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
    weight_decays: tuple[float, ...] = (0.0, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    seeds: int = 3
    epochs: int = 30

    def list_settings(self) -> tuple[Setting, ...]:
        """Return the settings of all heads; for each learning rate the strongest weight decay comes first."""
        decays = sorted(self.weight_decays, reverse=True)
        return tuple(
            Setting(*combination) for combination in itertools.product(self.learning_rates, decays, range(self.seeds))
        )


@dataclass(frozen=True)
class HeadTraining:
    """How all heads train.

    Attributes:
        epochs: passes over the images.
        batch_size: images per step.
        seed: determines the order of the images, which is the same for all heads.
        width: number of features before they were rotated; the initial weights scale with it.
    """

    epochs: int
    batch_size: int
    seed: int
    width: int


@dataclass(frozen=True)
class LinearHeads:
    """Trained heads. `values` is float32 [rank + 1, classes, heads]: the weights, and the biases in the last row."""

    settings: tuple[Setting, ...]
    values: Tensor

    def compute_logits(self, features: Tensor) -> Tensor:
        """Return the logits [n, classes, heads] of `features` [n, rank]."""
        products: Tensor = torch.tensordot(features, self.values[:-1], 1)
        return products + self.values[-1]

    def get_linear_models(self) -> list[LinearModel]:
        """Return the heads one by one."""
        values = self.values.cpu().numpy()
        return [LinearModel(values[:-1, :, index].T, values[-1, :, index]) for index in range(len(self.settings))]


def fit_linear_heads(data: ProbeData, grid: HeadGrid, seed: int, width: int, device: torch.device) -> list[ProbeTrial]:
    """Train a head for each setting of `grid` and return their trials; `seed` and `width` as in `HeadTraining`."""
    start_time, settings = time.perf_counter(), grid.list_settings()
    features, labels = torch.from_numpy(data.train.features).to(device), torch.from_numpy(data.train.labels).to(device)
    training = HeadTraining(grid.epochs, compute_batch_size(len(labels)), seed, width)
    with _limit_threads(training.batch_size * features.shape[1] * data.num_classes * len(settings)):
        heads = train_linear_heads(features, labels, data.num_classes, settings, training)
    accuracies, losses = _evaluate_heads(heads, data.val)
    seconds = (time.perf_counter() - start_time) / len(settings)
    return [
        ProbeTrial(LINEAR_HEAD_METHOD, setting.to_dict(), accuracy, loss, seconds, linear)
        for setting, accuracy, loss, linear in zip(settings, accuracies, losses, heads.get_linear_models(), strict=True)
    ]


@contextmanager
def _limit_threads(multiply_adds: int) -> Iterator[None]:
    """Use a single thread for steps of few multiply-adds."""
    previous_threads = torch.get_num_threads()
    torch.set_num_threads(previous_threads if multiply_adds >= MIN_MULTIPLY_ADDS_FOR_THREADS else 1)
    try:
        yield
    finally:
        torch.set_num_threads(previous_threads)


def compute_batch_size(num_images: int) -> int:
    """Return the batch size for `num_images` train images."""
    min_size, max_size = BATCH_SIZE_RANGE
    return min(max(num_images // MIN_STEPS_PER_EPOCH, min_size), max_size)


def _evaluate_heads(heads: LinearHeads, val: FeatureSet) -> tuple[list[float], list[float]]:
    """Return the accuracy and the mean cross-entropy of each head."""
    features, labels = torch.from_numpy(val.features), torch.from_numpy(val.labels)
    num_correct, loss_sum = torch.zeros(2, len(heads.settings), device=heads.values.device)
    for start in range(0, len(labels), ROWS_PER_CHUNK):
        chunk = slice(start, start + ROWS_PER_CHUNK)
        logits = heads.compute_logits(features[chunk].to(heads.values))
        targets = labels[chunk].to(num_correct.device)[:, None]
        num_correct += (logits.argmax(1) == targets).sum(0)
        loss_sum += F.cross_entropy(logits, targets.expand(-1, len(num_correct)), reduction="none").sum(0)
    return (num_correct.double() / len(labels)).tolist(), (loss_sum / len(labels)).tolist()


def train_linear_heads(
    features: Tensor, labels: Tensor, num_classes: int, settings: Sequence[Setting], training: HeadTraining
) -> LinearHeads:
    """Train a head for each setting on float32 `features` [n, rank] and int64 `labels` [n], by SGD with momentum and a
    cosine schedule on the mean cross-entropy.

    All heads are side by side in one matrix [rank + 1, (classes - 1) * heads], so that a step is two matrix products
    and the closed-form gradient of softmax and cross-entropy. The weights of the classes start with sum 0, which
    softmax cannot distinguish from other sums, and keep it, as their gradients have sum 0. So the last class is minus
    the sum of the others and is not computed, which halves the work for two classes. Biases start at 0 and have no
    weight decay.
    """
    inputs = torch.cat([features, features.new_ones(len(features), 1)], 1)
    targets = F.one_hot(labels, num_classes)[:, :-1, None].to(features)
    values = _init_values(features.shape[1], num_classes, settings, training.width).to(features)
    momentum_buffer = torch.zeros_like(values)
    rates = features.new_tensor([setting.learning_rate for setting in settings]).repeat(num_classes - 1)
    decays = features.new_tensor([setting.weight_decay for setting in settings]).repeat(num_classes - 1)
    for factor, batch_inputs, batch_targets in _iter_steps(inputs, targets, training):
        logits = _append_last_class(torch.mm(batch_inputs, values).view(len(batch_inputs), num_classes - 1, -1))
        error = (logits.softmax(1)[:, :-1] - batch_targets).view(len(batch_inputs), -1)
        momentum_buffer.addmm_(batch_inputs.T, error, beta=MOMENTUM, alpha=1 / len(batch_inputs))
        momentum_buffer[:-1].addcmul_(values[:-1], decays)
        values.addcmul_(momentum_buffer, rates, value=-factor)
    return LinearHeads(tuple(settings), _append_last_class(values.view(len(values), num_classes - 1, -1)))


def _append_last_class(values: Tensor) -> Tensor:
    """Return [n, classes, heads] for [n, classes - 1, heads]: the last class is minus the sum of the others."""
    return torch.cat([values, -values.sum(1, keepdim=True)], 1)


def _init_values(rank: int, num_classes: int, settings: Sequence[Setting], width: int) -> Tensor:
    """Return initial weights of the variance that torch uses for a layer of `width` inputs, and zero biases.

    They are normal, since only then their distribution does not depend on the axes of the features. The mean over the
    classes is subtracted and the last class left out.
    """
    seeds = {setting.seed for setting in settings}
    weights_by_seed = {
        seed: torch.randn(rank, num_classes, generator=torch.Generator().manual_seed(seed)) for seed in seeds
    }
    weights = torch.stack([weights_by_seed[setting.seed] for setting in settings], 2) / math.sqrt(3 * width)
    centered_weights = (weights - weights.mean(1, keepdim=True))[:, :-1]
    return torch.cat([centered_weights, torch.zeros(1, num_classes - 1, len(settings))]).view(rank + 1, -1)


def _iter_steps(inputs: Tensor, targets: Tensor, training: HeadTraining) -> Iterator[tuple[float, Tensor, Tensor]]:
    """Yield the factor of the schedule, the inputs and the targets of each step. Batch sizes differ by one at most."""
    num_batches = -(-len(inputs) // training.batch_size)
    rng = torch.Generator().manual_seed(training.seed)
    for epoch in range(training.epochs):
        permutation = torch.randperm(len(inputs), generator=rng).to(inputs.device)
        minibatches = zip(
            inputs[permutation].tensor_split(num_batches), targets[permutation].tensor_split(num_batches), strict=True
        )
        for batch_index, (batch_inputs, batch_targets) in enumerate(minibatches):
            progress = (epoch * num_batches + batch_index) / (training.epochs * num_batches)
            yield 0.5 * (1 + math.cos(math.pi * progress)), batch_inputs, batch_targets
