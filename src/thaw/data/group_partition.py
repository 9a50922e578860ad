"""Divide groups of images into parts that come close to given fractions of all images and of each class.

A group, such as a patient or a camera, is never divided. scikit-learn's StratifiedGroupKFold knows equal parts only and
places each group once; here groups are placed in a random order, then moved and exchanged as long as that helps. On few
large groups, parts deviate less than half as much from their fractions (tests/data/test_groups.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MAX_CELLS = 1_000_000  # groups times classes; beyond it, groups are placed by size and not moved
MAX_STEPS, MAX_CELLS_OF_ALL_STEPS = 1000, 200_000_000  # about 2 s
MAX_STARTS = 20  # until no part is empty and no class is missing in the first
MAX_EXCHANGED_GROUPS = 400  # more groups even out without exchanges
MAX_TRIED_EXCHANGES, MAX_TRIED_IF_INCOMPLETE = 30, 2000
NUM_DIGITS = 9  # later digits of a sum differ between machines, on which ties must be broken alike
EMPTY_PART_COST = 1000.0  # more than all deviations together
MISSING_CLASS_COST = 0.3  # as much as a part that has 25 % of the images instead of 15 %, and 25 % of each class


def divide_groups(
    labels: np.ndarray, groups: np.ndarray, fractions: Sequence[float], seed: Sequence[int], *, is_equal: bool = False
) -> np.ndarray:
    """Return the part of each group, int64 [groups]: an index into `fractions`, which add up to 1.

    `labels` and `groups` are int64 [images], counted from 0 without gaps. A class that has too few groups for all parts
    is in the first ones: train before test before val. `is_equal`: it may be missing in any, as parts are folds. No
    part is empty, and no class is missing in the first part, unless that is impossible.
    """
    rng = np.random.default_rng(seed)
    partition = _Partition(labels, groups, np.array(fractions), is_equal)
    num_cells = partition.num_groups * partition.targets.shape[1]
    for _ in range(MAX_STARTS):
        order = rng.permutation(partition.num_groups)
        if num_cells > MAX_CELLS:
            partition.place_all(partition.sort_by_size(order))
        else:
            partition.place_all(order)
            partition.improve(min(MAX_STEPS, MAX_CELLS_OF_ALL_STEPS // num_cells))
        if partition.compute_cost() < EMPTY_PART_COST:
            break
    return partition.assigned


class _Partition:
    """Groups and their parts. Column `c` is class `c`, and the last one is all images.

    Attributes:
        columns, shares: of each group, its columns, and which share of them it is. Those of classes are scaled so that
            all classes together count as much as all images.
        targets: what each part should have, float64 [parts, columns].
        missing_costs: of a column of which a part has nothing, float64 [parts, columns].
        filled, coverage: shares and number of groups that each part has of each column, [parts, columns].
        assigned: part of each group, int64 [groups]; -1 before it is placed.
    """

    def __init__(self, labels: np.ndarray, groups: np.ndarray, fractions: np.ndarray, is_equal: bool) -> None:
        num_classes, self.num_groups = int(labels.max()) + 1, int(groups.max()) + 1
        entries, counts = np.unique(groups * num_classes + labels, return_counts=True)
        entry_groups, entry_classes = np.divmod(entries, num_classes)
        class_shares = counts / np.bincount(labels)[entry_classes] / np.sqrt(num_classes)
        starts = np.searchsorted(entry_groups, np.arange(1, self.num_groups))
        sizes = np.bincount(groups) / len(groups)
        self.columns = [np.append(classes, num_classes) for classes in np.split(entry_classes, starts)]
        self.shares = [
            np.append(shares, size) for shares, size in zip(np.split(class_shares, starts), sizes, strict=True)
        ]
        self.fractions = fractions[:, None]
        self.targets = self.fractions * np.append(np.full(num_classes, 1 / np.sqrt(num_classes)), 1.0)
        self.missing_costs = _compute_missing_costs(np.bincount(entry_classes), len(fractions), is_equal)
        self.filled, self.coverage = np.empty_like(self.targets), np.empty(self.targets.shape, dtype=np.int64)
        self.assigned = np.empty(self.num_groups, dtype=np.int64)

    def sort_by_size(self, order: np.ndarray) -> np.ndarray:
        """Return the groups with the largest first, and those of one size in their order."""
        sizes = np.array([np.square(shares).sum() for shares in self.shares]).round(NUM_DIGITS)
        return order[np.argsort(-sizes[order], kind="stable")]

    def place_all(self, order: np.ndarray) -> None:
        """Place each group in the part where it costs least, in this order. Parts are empty before."""
        self.filled[:], self.coverage[:], self.assigned[:] = 0, 0, -1
        for group in order.tolist():
            columns, shares = self.columns[group], self.shares[group]
            deviations = self.filled[:, columns] - self.targets[:, columns]
            cost = ((2 * deviations + shares) * shares / self.fractions).sum(1)
            cost -= (self.missing_costs[:, columns] * (self.coverage[:, columns] == 0)).sum(1)
            self._place(group, int(cost.round(NUM_DIGITS).argmin()))

    def _place(self, group: int, part: int) -> None:
        columns, shares, old_part = self.columns[group], self.shares[group], self.assigned[group]
        if old_part >= 0:
            self.filled[old_part, columns] -= shares
            self.coverage[old_part, columns] -= 1
        self.filled[part, columns] += shares
        self.coverage[part, columns] += 1
        self.assigned[group] = part

    def improve(self, max_steps: int) -> None:
        """Move single groups, and exchange two of different parts, as long as that lowers the cost."""
        shares = np.zeros((self.num_groups, self.targets.shape[1]))
        for group, columns in enumerate(self.columns):
            shares[group, columns] = self.shares[group]
        for _ in range(max_steps):
            if not self._move_one(shares) and not self._exchange_two(shares):
                return

    def compute_cost(self) -> float:
        """Return how far the parts are from their targets, with what is missing."""
        deviations = np.square(self.filled - self.targets) / self.fractions
        return float(deviations.sum() + (self.missing_costs * (self.coverage == 0)).sum())

    def _move_one(self, shares: np.ndarray) -> bool:
        rows, squares = np.arange(self.num_groups), np.square(shares).sum(1)[:, None]
        overlap = 2 * shares @ (self.filled - self.targets).T  # [groups, parts]
        leaving_cost = ((squares - overlap) / self.fractions.T)[rows, self.assigned, None]
        cost = leaving_cost + (squares + overlap) / self.fractions.T
        is_present = (shares > 0).astype(float)
        cost -= is_present @ (self.missing_costs * (self.coverage == 0)).T
        cost += (is_present @ (self.missing_costs * (self.coverage == 1)).T)[rows, self.assigned, None]
        cost[rows, self.assigned] = 0
        cost = cost.round(NUM_DIGITS)
        group, part = np.unravel_index(cost.argmin(), cost.shape)
        if cost[group, part] >= 0:
            return False
        self._place(int(group), int(part))
        return True

    def _exchange_two(self, shares: np.ndarray) -> bool:
        if self.num_groups > MAX_EXCHANGED_GROUPS:
            return False
        cost, before = self._estimate_exchanges(shares), self.compute_cost()
        # An exchange that makes parts less even may put a class into a part that has none of it.
        is_complete = not (self.missing_costs * (self.coverage == 0)).any()
        num_tried = MAX_TRIED_EXCHANGES if is_complete else MAX_TRIED_IF_INCOMPLETE
        for position in np.argsort(cost, axis=None, kind="stable")[:num_tried].tolist():
            first, second = divmod(position, self.num_groups)
            if cost[first, second] == np.inf or (is_complete and cost[first, second] >= 0):
                return False
            first_part, second_part = int(self.assigned[first]), int(self.assigned[second])
            self._place(first, second_part)
            self._place(second, first_part)
            if round(self.compute_cost() - before, NUM_DIGITS) < 0:
                return True
            self._place(first, first_part)
            self._place(second, second_part)
        return False

    def _estimate_exchanges(self, shares: np.ndarray) -> np.ndarray:
        """Return the cost of exchanging two groups, without that of missing classes, float64 [groups, groups]: infinite
        below the diagonal and for two groups of one part."""
        squares, parts = np.square(shares).sum(1), self.assigned
        distances = squares[:, None] + squares - 2 * shares @ shares.T
        overlap = 2 * shares @ (self.filled - self.targets).T
        # The cost for the part of the row's group, which that group leaves for the group of the column.
        cost = overlap[:, parts].T - overlap[np.arange(self.num_groups), parts][:, None] + distances
        cost /= self.fractions[parts]
        is_excluded = np.tri(self.num_groups, dtype=bool) | (parts[:, None] == parts)
        return np.where(is_excluded, np.inf, (cost + cost.T).round(NUM_DIGITS))


def _compute_missing_costs(groups_per_class: np.ndarray, num_parts: int, is_equal: bool) -> np.ndarray:
    ranks = np.zeros(num_parts) if is_equal else np.arange(num_parts)
    costs = np.where(ranks[:, None] < groups_per_class, MISSING_CLASS_COST, 0.0)
    if not is_equal:
        costs[0] = EMPTY_PART_COST
        costs[2:] /= 10  # validation images of every class matter less than test images
    return np.append(costs, np.full((num_parts, 1), EMPTY_PART_COST), axis=1)
