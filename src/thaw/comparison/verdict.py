"""One sentence about a comparison: what won, by how much, and whether chance explains it."""

from __future__ import annotations

from collections.abc import Sequence

from thaw.comparison.configurations import Configuration
from thaw.comparison.significance import PairedTest
from thaw.config.errors import format_names

SIGNIFICANCE_LEVEL = 0.05  # of the p values that are corrected for the number of tests
MIN_SHOWN_P = 0.001
MAX_LISTED = 3
EQUAL_TOLERANCE = 1e-12


def describe_verdict(configurations: Sequence[Configuration]) -> str:
    """Return the sentence. The reference, which is the best on the validation images, is compared with the most
    accurate of the others on the test images."""
    reference = next(configuration for configuration in configurations if configuration.is_reference)
    tests = {
        configuration.label: configuration.paired_test
        for configuration in configurations
        if configuration.paired_test is not None
    }
    if len(configurations) == 1:
        return f"There is one configuration, {reference.label}, and nothing to compare: {_format_estimate(reference)}."
    if not tests:
        return f"Nothing can be tested: the others have other test images, or other seeds, than {reference.label}."
    rival = max((row for row in configurations if row.label in tests), key=lambda row: tests[row.label].difference)
    return f"{_describe_pair(reference, rival, tests[rival.label])}{_describe_others(rival.label, tests)}."


def _format_estimate(configuration: Configuration) -> str:
    estimate = configuration.test_accuracy
    return f"test accuracy {estimate.mean:.3f}, 95 % interval {estimate.low:.3f} to {estimate.high:.3f}"


def _describe_pair(reference: Configuration, rival: Configuration, test: PairedTest) -> str:
    """Describe the difference of the best two. That of the test is the rival's minus the reference's."""
    if test.difference > 0:
        winner, loser, sign = rival, reference, 1
    else:
        winner, loser, sign = reference, rival, -1
    low, high = sorted((sign * test.low, sign * test.high))
    num_images = len(rival.runs[0].predictions.paths)
    sample = f"{test.num_seeds} seeds" if test.num_seeds > 1 else f"one seed, {num_images} images"
    difference = f"{sign * test.difference:+.3f}, 95 % interval {low:+.3f} to {high:+.3f}, {sample}"
    numbers = f"{winner.test_accuracy.mean:.3f} against {loser.test_accuracy.mean:.3f} of {loser.label} ({difference})"
    p_value = test.adjusted_p_value
    if p_value > SIGNIFICANCE_LEVEL:
        if abs(test.difference) < EQUAL_TOLERANCE:
            interval = f"95 % interval of the difference {low:+.3f} to {high:+.3f}, {sample}"
            return f"{reference.label} and {rival.label} tie at {winner.test_accuracy.mean:.3f} ({interval})"
        return f"No difference that chance does not explain: {winner.label} {numbers}, p = {p_value:.2f}"
    odds = f"1 of {_round_odds(p_value):,}" if p_value >= MIN_SHOWN_P else f"fewer than 1 of {1 / MIN_SHOWN_P:,.0f}"
    p_text = f"p = {p_value:.2g}" if p_value >= MIN_SHOWN_P else f"p < {MIN_SHOWN_P}"
    remark = "" if winner.is_reference else f", though {reference.label} was best on the validation images"
    chance = f"chance alone would give such a difference in {odds} sweeps ({p_text})"
    return f"{winner.label} won: {numbers}{remark}; {chance}"


def _round_odds(p_value: float) -> int:
    return int(float(f"{1 / p_value:.2g}"))


def _describe_others(rival_label: str, tests: dict[str, PairedTest]) -> str:
    """Name the other configurations that are worse than the reference by more than chance."""
    worse_labels = [
        label
        for label, test in tests.items()
        if label != rival_label and test.difference < 0 and test.adjusted_p_value <= SIGNIFICANCE_LEVEL
    ]
    if not worse_labels:
        return ""
    verb = "is" if len(worse_labels) == 1 else "are"
    return f"; {format_names(worse_labels, MAX_LISTED)} {verb} worse by more than chance explains"
