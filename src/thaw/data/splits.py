"""Splits that a data set does not have itself: cut from its train images, class by class, by seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from thaw.config.faults import Fault, UserFault, listing
from thaw.data.rows import Row


def cut(rows: Iterable[Row], shares: Mapping[str, float], seed: int) -> list[Row]:
    """Moves `shares[split]` of each class's train rows into the split; at least one stays in train."""

    def placed(members: Sequence[Row]) -> list[Row]:
        counts = {split: round(share * len(members)) for split, share in shares.items()}
        return _dealt(members, counts, "train")

    return _by_class(rows, placed, seed)


def cut_per_class(rows: Sequence[Row], count: int, val_share: float, seed: int) -> list[Row]:
    """`count` train rows a class, as papers on Caltech101 have it; of the rest of the class `val_share` go to val, all
    others to test.

    Raises:
        UserFault: naming the classes that have no more than `count` rows: nothing of them would be left to test.
    """
    sizes: dict[str, int] = {}
    for row in rows:
        sizes[row.name] = sizes.get(row.name, 0) + 1
    if few := [f"{name} ({size})" for name, size in sorted(sizes.items()) if size <= count]:
        most = min(sizes.values()) - 1
        fix = f"dataset.per_class={most}" if most > 0 else "dataset.per_class=null"
        fault = Fault(f"dataset.per_class={count}", listing(few), f"{count + 1} images a class at least", fix)
        raise UserFault("classes with too few images.", [fault])

    def placed(members: Sequence[Row]) -> list[Row]:
        return _dealt(members, {"train": count, "val": round(val_share * (len(members) - count))}, "test")

    return _by_class(rows, placed, seed)


def _dealt(members: Sequence[Row], counts: Mapping[str, int], rest: str) -> list[Row]:
    """The first `counts[split]` members go into each split, in turn, and all others, one at least, into `rest`."""
    dealt, left = [], list(members)
    for split, count in counts.items():
        taken = min(count, len(left) - 1)
        dealt += [replace(row, split=split) for row in left[:taken]]
        left = left[taken:]
    return dealt + [replace(row, split=rest) for row in left]


def _by_class(rows: Iterable[Row], placed: Callable[[Sequence[Row]], list[Row]], seed: int) -> list[Row]:
    """Each class's train rows shuffled, by (seed, number of the class), and placed; the others as they are."""
    by_class: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda one: one.path):
        by_class.setdefault(row.name, []).append(row)
    result = []
    for label, name in enumerate(sorted(by_class)):
        members = [row for row in by_class[name] if row.split in (None, "train")]
        result += [row for row in by_class[name] if row.split not in (None, "train")]
        order = np.random.default_rng((seed, label)).permutation(len(members))
        result += placed([members[position] for position in order]) if members else []
    return result
