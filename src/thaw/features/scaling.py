"""Features standardised, and seen from the train images' own axes, in which a linear classifier learns the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Linear:
    """logits = features @ weight.T + bias, of `weight` [classes, width] and `bias` [classes]."""

    weight: np.ndarray
    bias: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        """[n, classes] of [n, width]."""
        return np.asarray(features @ self.weight.T + self.bias)


@dataclass(frozen=True)
class Scaling:
    """`mean` and `deviation` are float64 [width]. `axes` is float32 [width, rank] with orthonormal columns that span
    the standardised train features, or None where these are not fewer than the width.

    What is rotated with its data by every method here, the inner products being all that it sees of them, gives the
    same in `rank` numbers an image as in `width`: nearest neighbours and centroids, linear models with an L2 penalty,
    and gradient descent with momentum and weight decay from a start within the span. Of another image what lies outside
    the span is dropped: it is orthogonal to every weight, and alike in the distances to all train images.
    """

    mean: np.ndarray
    deviation: np.ndarray
    axes: np.ndarray | None

    def applied(self, features: np.ndarray) -> np.ndarray:
        """float32 [n, rank] of [n, width]."""
        standard: np.ndarray = ((features - self.mean) / self.deviation).astype(np.float32)
        return standard if self.axes is None else np.asarray(standard @ self.axes)

    def folded(self, linear: Linear) -> Linear:
        """The same logits from features as they come: `linear` takes what `applied` gives."""
        weight = linear.weight.astype(np.float64)
        weight = (weight if self.axes is None else weight @ self.axes.T) / self.deviation
        return Linear(weight, linear.bias - weight @ self.mean)


def scaling_of(train: np.ndarray, turned: bool = True) -> Scaling:
    """Of float [n, width]; not `turned`: without axes in any case. A feature that is the same in all train images is
    centred alone."""
    mean, deviation = train.mean(0, dtype=np.float64), train.std(0, dtype=np.float64)
    scaling = Scaling(mean, np.where(deviation > 0, deviation, 1.0), None)
    if len(train) >= train.shape[1] or not turned:
        return scaling
    axes, _ = np.linalg.qr(scaling.applied(train).T)  # 4 ms for 195 x 1280, a singular value decomposition 40
    return Scaling(scaling.mean, scaling.deviation, axes)
