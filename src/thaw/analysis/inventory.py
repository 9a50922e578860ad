"""What a data set holds and what is wrong with it, said on the screen. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from thaw.config.faults import listing
from thaw.data.problems import NAMED_ON_SCREEN, Problem
from thaw.data.samples import Samples


def say_samples(name: str, samples: Samples, skipped: Mapping[str, str]) -> None:
    """Counts, and what is not among the samples: `skipped` is path -> why it cannot be decoded."""
    counts = ", ".join(f"{count} {split}" for split, count in samples.counts().items())
    print(f"{name}: {counts} images of {len(samples.classes)} classes, fingerprint {samples.fingerprint}")
    unused = len(samples.samples) - sum(samples.counts().values())
    if unused:
        print(f"train images left aside: {unused} (data.train_per_class)")
    if samples.passed_over:
        named = listing(samples.passed_over, NAMED_ON_SCREEN)
        print(f"passed over, as they are no image of a class: {len(samples.passed_over)} ({named})")
    if skipped:
        named = listing([f"{path}: {why}" for path, why in skipped.items()], NAMED_ON_SCREEN)
        print(f"left out, as they cannot be decoded: {len(skipped)} ({named})")


def say_problems(problems: Iterable[Problem]) -> None:
    for problem in problems:
        print(f"warning: {problem}")
