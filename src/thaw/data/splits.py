"""Create the splits that a data set does not have, from its train images, class by class and by seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from thaw.config.errors import Problem, UserError, format_names
from thaw.data.readers import Row


def split_stratified(rows: Iterable[Row], fractions: Mapping[str, float], seed: int) -> list[Row]:
    """Move the fraction `fractions[split]` of each class's train rows to `split`; at least one stays in train."""

    def assign_splits(members: Sequence[Row]) -> list[Row]:
        counts = {split: round(fraction * len(members)) for split, fraction in fractions.items()}
        return _assign_in_turn(members, counts, "train")

    return _assign_per_class(rows, assign_splits, seed)


def split_per_class(rows: Sequence[Row], count: int, val_fraction: float, seed: int) -> list[Row]:
    """Assign `count` rows of each class to train, as papers on Caltech101 do, then `val_fraction` of the remaining rows
    to val and all others to test.

    Raises:
        UserError: if classes have at most `count` rows and would have no test images; it lists them.
    """
    class_sizes: dict[str, int] = {}
    for row in rows:
        class_sizes[row.class_name] = class_sizes.get(row.class_name, 0) + 1
    if small_classes := [f"{name} ({size})" for name, size in sorted(class_sizes.items()) if size <= count]:
        max_count = min(class_sizes.values()) - 1
        fix = f"dataset.per_class={max_count}" if max_count > 0 else "dataset.per_class=null"
        problem = Problem(
            f"dataset.per_class={count}", format_names(small_classes), f"at least {count + 1} images per class", fix
        )
        raise UserError("classes with too few images.", [problem])

    def assign_splits(members: Sequence[Row]) -> list[Row]:
        return _assign_in_turn(members, {"train": count, "val": round(val_fraction * (len(members) - count))}, "test")

    return _assign_per_class(rows, assign_splits, seed)


def _assign_in_turn(members: Sequence[Row], counts: Mapping[str, int], last_split: str) -> list[Row]:
    """Assign the first `counts[split]` members to each split in turn and all others, at least one, to `last_split`."""
    assigned_rows, remaining_rows = [], list(members)
    for split, count in counts.items():
        num_taken = min(count, len(remaining_rows) - 1)
        assigned_rows += [replace(row, split=split) for row in remaining_rows[:num_taken]]
        remaining_rows = remaining_rows[num_taken:]
    return assigned_rows + [replace(row, split=last_split) for row in remaining_rows]


def _assign_per_class(rows: Iterable[Row], assign_splits: Callable[[Sequence[Row]], list[Row]], seed: int) -> list[Row]:
    """Shuffle the train rows of each class by (seed, label) and assign their splits; other rows stay unchanged."""
    rows_per_class: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.path):
        rows_per_class.setdefault(row.class_name, []).append(row)
    result = []
    for label, name in enumerate(sorted(rows_per_class)):
        members = [row for row in rows_per_class[name] if row.split in (None, "train")]
        result += [row for row in rows_per_class[name] if row.split not in (None, "train")]
        order = np.random.default_rng((seed, label)).permutation(len(members))
        result += assign_splits([members[position] for position in order]) if members else []
    return result
