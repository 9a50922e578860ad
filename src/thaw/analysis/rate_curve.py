"""What the losses of a learning-rate range test say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

SMOOTHING = 0.9  # the mean looks back some ten steps; 0.8 and 0.95 suggest the same within a factor of 3
SETTLED = 10  # steps; before, the smoothed loss is of a few losses, and their noise is its slope
SPAN = 4  # steps to either side of a slope: a single batch far from the mean is no descent
DIVERGED = 4.0
LEAST_FALL = 0.05  # of the loss; less is noise


@dataclass(frozen=True)
class RateCurve:
    """Losses by rising learning rate; `smoothed` is their exponential mean, corrected for its start at 0. `diverged`:
    the losses went on, to more than 4 times the best smoothed one, or to no number; that rest is left out."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    diverged: bool

    @property
    def minimum(self) -> int:
        """The step of the lowest smoothed loss, the first 10 left out where there are more."""
        first = min(SETTLED, len(self.smoothed) - 1)
        return min(range(first, len(self.smoothed)), key=self.smoothed.__getitem__)

    @property
    def steepest(self) -> int | None:
        """The step before the minimum where the smoothed loss falls fastest against the logarithm of the rate, as the
        rate rises by the same factor at every step. None where the loss hardly falls, or too few steps were taken."""
        inner = range(SETTLED, min(self.minimum + 1, len(self.smoothed) - SPAN))
        if not inner or self.smoothed[self.minimum] > (1 - LEAST_FALL) * max(self.smoothed[SETTLED : inner.stop]):
            return None
        return min(inner, key=lambda step: self.smoothed[step + SPAN] - self.smoothed[step - SPAN])

    @property
    def is_bounded(self) -> bool:
        """Whether the loss rises again behind its minimum. A few batches that are learned by heart leave a loss near 0
        that no rate drives up, and then the minimum lies where the test ended."""
        return self.diverged or self.smoothed[-1] > (1 + LEAST_FALL) * self.smoothed[self.minimum]


def curve_of(rates: Sequence[float], losses: Sequence[float]) -> RateCurve:
    """The curve up to where it diverges. `rates` and `losses` are by step."""
    smoothed: list[float] = []
    average, best = 0.0, math.inf
    for step, loss in enumerate(losses):
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        value = average / (1 - SMOOTHING ** (step + 1))
        if not value <= DIVERGED * best or not math.isfinite(value):
            break
        best = min(best, value)
        smoothed.append(value)
    count = len(smoothed)
    return RateCurve(tuple(rates[:count]), tuple(losses[:count]), tuple(smoothed), count < len(losses))
