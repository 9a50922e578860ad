"""What a data set holds and what is wrong with it, said on the screen. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from thaw.config.faults import format_names
from thaw.data.problems import MAX_NAMES_ON_SCREEN, DatasetProblem
from thaw.data.samples import Samples


def print_dataset_summary(name: str, samples: Samples, skipped: Mapping[str, str]) -> None:
    """Counts, and what is not among the samples: `skipped` is path -> why it cannot be decoded."""
    counts = ", ".join(f"{count} {split}" for split, count in samples.count_per_split().items())
    print(f"{name}: {counts} images of {len(samples.classes)} classes, fingerprint {samples.fingerprint}")
    unused = len(samples.samples) - sum(samples.count_per_split().values())
    if unused:
        print(f"train images left aside: {unused} (data.train_per_class)")
    if samples.ignored_files:
        text = format_names(samples.ignored_files, MAX_NAMES_ON_SCREEN)
        print(f"passed over, as they are no image of a class: {len(samples.ignored_files)} ({text})")
    if skipped:
        text = format_names([f"{path}: {reason}" for path, reason in skipped.items()], MAX_NAMES_ON_SCREEN)
        print(f"left out, as they cannot be decoded: {len(skipped)} ({text})")


def print_problems(problems: Iterable[DatasetProblem]) -> None:
    for problem in problems:
        print(f"warning: {problem}")
