"""What the losses of a learning-rate range test say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

SMOOTHING = 0.9  # the mean looks back some ten steps; 0.8 and 0.95 suggest the same within a factor of 3
SKIPPED_STEPS = 10  # steps; before, the smoothed loss is of a few losses, and their noise is its slope
SLOPE_SPAN = 4  # steps to either side of a slope: a single batch far from the mean is no descent
DIVERGENCE_FACTOR = 4.0
MIN_LOSS_DECREASE = 0.05  # of the loss; less is noise


@dataclass(frozen=True)
class LRCurve:
    """Losses by rising learning rate; `smoothed` is their exponential mean, corrected for its start at 0. `diverged`:
    the losses went on, to more than 4 times the best smoothed one, or to no number; that rest is left out."""

    learning_rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed_losses: tuple[float, ...]
    has_diverged: bool

    @property
    def minimum_step(self) -> int:
        """The step of the lowest smoothed loss, the first 10 left out where there are more."""
        first_step = min(SKIPPED_STEPS, len(self.smoothed_losses) - 1)
        return min(range(first_step, len(self.smoothed_losses)), key=self.smoothed_losses.__getitem__)

    @property
    def steepest_step(self) -> int | None:
        """The step before the minimum where the smoothed loss falls fastest against the logarithm of the rate, as the
        rate rises by the same factor at every step. None where the loss hardly falls, or too few steps were taken."""
        candidate_steps = range(SKIPPED_STEPS, min(self.minimum_step + 1, len(self.smoothed_losses) - SLOPE_SPAN))
        if not candidate_steps or self.smoothed_losses[self.minimum_step] > (1 - MIN_LOSS_DECREASE) * max(
            self.smoothed_losses[SKIPPED_STEPS : candidate_steps.stop]
        ):
            return None
        return min(
            candidate_steps,
            key=lambda step: self.smoothed_losses[step + SLOPE_SPAN] - self.smoothed_losses[step - SLOPE_SPAN],
        )

    @property
    def is_bounded(self) -> bool:
        """Whether the loss rises again behind its minimum. A few batches that are learned by heart leave a loss near 0
        that no rate drives up, and then the minimum lies where the test ended."""
        return (
            self.has_diverged
            or self.smoothed_losses[-1] > (1 + MIN_LOSS_DECREASE) * self.smoothed_losses[self.minimum_step]
        )


def build_lr_curve(learning_rates: Sequence[float], losses: Sequence[float]) -> LRCurve:
    """The curve up to where it diverges. `rates` and `losses` are by step."""
    smoothed_losses: list[float] = []
    average, best_loss = 0.0, math.inf
    for step, loss in enumerate(losses):
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        smoothed_loss = average / (1 - SMOOTHING ** (step + 1))
        if not smoothed_loss <= DIVERGENCE_FACTOR * best_loss or not math.isfinite(smoothed_loss):
            break
        best_loss = min(best_loss, smoothed_loss)
        smoothed_losses.append(smoothed_loss)
    count = len(smoothed_losses)
    return LRCurve(tuple(learning_rates[:count]), tuple(losses[:count]), tuple(smoothed_losses), count < len(losses))
