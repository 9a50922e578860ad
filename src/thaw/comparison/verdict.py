"""One sentence about a comparison: what won, what is equivalent, or what would decide it."""

from __future__ import annotations

from collections.abc import Sequence

from thaw.comparison.configurations import Configuration
from thaw.comparison.needed import estimate_needed_sample
from thaw.comparison.significance import EQUIVALENCE_MARGIN, PairedTest
from thaw.config.errors import format_count, format_names

MIN_SHOWN_P = 0.001
MAX_LISTED = 3
EQUAL_TOLERANCE = 1e-12
MARGIN_TEXT = f"{100 * EQUIVALENCE_MARGIN:g} percentage point"


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
    interval = f"95 % interval {low:+.3f} to {high:+.3f}, {_describe_sample(test)}"
    if abs(test.difference) < EQUAL_TOLERANCE:
        tie = f"{reference.label} and {rival.label} tie at {winner.test_accuracy.mean:.3f}"
        return f"{tie} ({interval.replace('interval', 'interval of the difference')}){_describe_rest(test)}"
    accuracies = f"{winner.test_accuracy.mean:.3f} against {loser.test_accuracy.mean:.3f} of {loser.label}"
    numbers = f"{accuracies} ({sign * test.difference:+.3f}, {interval})"
    if not test.is_different:
        status = "Equivalent" if test.is_equivalent else "Undecided"
        return f"{status}: {winner.label} {numbers}, p = {test.adjusted_p_value:.2f}{_describe_rest(test)}"
    remark = "" if winner.is_reference else f", though {reference.label} was best on the validation images"
    chance = f"{remark}; {_describe_chance(test.adjusted_p_value)}"
    small = f"; they are equivalent within {MARGIN_TEXT} nevertheless" if test.is_equivalent else ""
    return f"{winner.label} won: {numbers}{chance}{small}"


def _describe_rest(test: PairedTest) -> str:
    """Return whether accuracies that do not differ by more than chance are equivalent, or what would decide it."""
    if test.is_equivalent:
        p_text = _format_p_value(test.adjusted_equivalence_p_value)
        return f"; they are equivalent within {MARGIN_TEXT} ({p_text} for a larger difference)"
    needed = estimate_needed_sample(test)
    return f"; {needed.describe()}" if needed else ""


def _describe_sample(test: PairedTest) -> str:
    """Return what the test compared: seeds, splits or folds, images and groups."""
    sample = test.sample
    if test.method == "seeds":
        return f"{sample.num_seeds} seeds"
    if test.method == "splits":
        return f"{sample.num_splits} splits"
    groups = f" in {format_count(sample.num_groups, 'group')}" if sample.num_groups < sample.num_images else ""
    images = f"{sample.num_images:,} images{groups}"
    if test.method.startswith("pooled"):
        return f"{images}, {sample.num_splits} folds"
    repeated = f"{sample.num_splits} splits" if sample.num_splits > 1 else f"{sample.num_seeds} seeds"
    return f"one seed, {images}" if max(sample.num_splits, sample.num_seeds) == 1 else f"{repeated}, {images}"


def _describe_chance(p_value: float) -> str:
    odds = f"1 of {_round_odds(p_value):,}" if p_value >= MIN_SHOWN_P else f"fewer than 1 of {1 / MIN_SHOWN_P:,.0f}"
    return f"chance alone would give such a difference in {odds} sweeps ({_format_p_value(p_value)})"


def _format_p_value(p_value: float) -> str:
    return f"p = {p_value:.2g}" if p_value >= MIN_SHOWN_P else f"p < {MIN_SHOWN_P}"


def _round_odds(p_value: float) -> int:
    return int(float(f"{1 / p_value:.2g}"))


def _describe_others(rival_label: str, tests: dict[str, PairedTest]) -> str:
    """Name the other configurations that are worse than the reference by more than chance."""
    worse_labels = [
        label for label, test in tests.items() if label != rival_label and test.difference < 0 and test.is_different
    ]
    if not worse_labels:
        return ""
    verb = "is" if len(worse_labels) == 1 else "are"
    return f"; {format_names(worse_labels, MAX_LISTED)} {verb} worse by more than chance explains"
