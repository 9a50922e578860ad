"""The sign-flip test over test images or groups of them, of which McNemar's test is the simplest case."""

from __future__ import annotations

import numpy as np
from scipy import stats

from thaw.metrics.bootstrap import UnitSums

MAX_EXACT_STATES = 2**27  # additions of the exact distribution, about a second; beyond that it is normal


def compute_sign_flip_p_value(units: UnitSums) -> float:
    """Return the two-sided mid-p value of the sign-flip test of "the mean is 0": each unit is as likely to be in favor
    of the configuration as of the reference, by the same amount. Without any difference it is 1.

    For one seed and no groups this is McNemar's test (1947) in its mid-p form (Fagerland, Lydersen and Laake 2013),
    which keeps the level where the exact one falls far below it. `units.sums` are whole numbers, so that the
    distribution is exact, by convolution; from about ten thousand unequal units on it is approximated by the normal
    one.
    """
    amounts = np.abs(np.rint(units.sums)).astype(np.int64)
    amounts = amounts[amounts > 0]
    observed = abs(int(np.rint(units.sums).sum()))
    if not len(amounts):
        return 1.0
    if len(amounts) * amounts.sum() > MAX_EXACT_STATES and len(set(amounts.tolist())) > 1:
        return float(min(1.0, 2 * stats.norm.sf(observed / np.sqrt((amounts**2).sum()))))
    return _compute_mid_p(amounts, observed)


def _compute_mid_p(amounts: np.ndarray, observed: int) -> float:
    """Return P(|S| > observed) + P(|S| = observed) / 2, S being the sum of `amounts` with random signs."""
    if len(set(amounts.tolist())) == 1:  # binomial, for any number of units
        step, count = int(amounts[0]), len(amounts)
        successes = (observed // step + count) // 2
        above = float(stats.binom.sf(successes, count, 0.5))
        equal = float(stats.binom.pmf(successes, count, 0.5))
    else:
        probabilities = np.ones(1)  # of the sums -total, -total + 2, ..., total
        for amount in amounts.tolist():
            shifted = np.zeros(len(probabilities) + amount)
            shifted[: len(probabilities)] += probabilities / 2
            shifted[amount:] += probabilities / 2
            probabilities = shifted
        index = (observed + int(amounts.sum())) // 2
        above, equal = float(probabilities[index + 1 :].sum()), float(probabilities[index])
    return 1.0 if observed == 0 else min(1.0, 2 * above + equal)
