"""Test images that a network may have seen in training: copies of train and validation images, and images of groups
that are also there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from thaw.data.near_copies import CopyPair
from thaw.data.sample_table import NO_GROUP
from thaw.data.samples import Samples

WITHOUT_LEAKS = "test_without_leaks"  # the entry of metrics.json: metrics of the test images that do not leak
TRAINING_SPLITS = ("train", "val")
LEAK_DESCRIPTIONS = {
    "copies": "equal files in train or val",
    "near_copies": "copies in other files in train or val",
    "groups": "a group that is also in train or val",
}


def find_leaks(samples: Samples, copies: Sequence[CopyPair] = ()) -> dict[str, np.ndarray]:
    """Return the positions of the test images that leak, int64, by kind: a key of LEAK_DESCRIPTIONS. Kinds without an
    image are left out.

    `copies`, from `find_copies` of the same images, add copies in other files.
    """
    test = samples.get_positions("test")
    file_contents = samples.find_unique_contents()[1]
    training = np.concatenate([samples.get_positions(split) for split in TRAINING_SPLITS])
    is_equal_file = np.isin(file_contents[test], file_contents[training])
    content, trained = _find_trained_contents(len(samples.samples), training, copies)
    leaks = {"copies": test[is_equal_file], "near_copies": test[np.isin(content[test], trained) & ~is_equal_file]}
    leaks["groups"] = find_group_leaks(samples)
    return {kind: positions for kind, positions in leaks.items() if len(positions)}


def find_group_leaks(samples: Samples) -> np.ndarray:
    """Return the positions of the test images whose group is also in train or val, int64."""
    table = samples.samples
    is_trained = np.isin(table.groups, table.groups[table.select_splits(*TRAINING_SPLITS)])
    return np.flatnonzero(table.select_splits("test") & (table.groups != NO_GROUP) & is_trained)


def _find_trained_contents(
    num_images: int, training: np.ndarray, copies: Sequence[CopyPair]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the content of each image, int64 [images], and those that are in `training` or near copies of one, int64.

    Images of equal pixels have one content. A near copy is listed for some images of a content, and concerns all.
    """
    content = np.arange(num_images)
    for pair in copies:
        if pair.is_exact:
            content[pair.second] = content[pair.first]
    if not copies:
        return content, training
    trained = set(content[training].tolist())
    near = [(int(content[pair.first]), int(content[pair.second])) for pair in copies if not pair.is_exact]
    similar = {name for pair in near for name, other in (pair, pair[::-1]) if other in trained}
    return content, np.array(sorted(trained | similar), dtype=np.int64)


def select_clean(positions: np.ndarray, leaks: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return which of `positions`, int64 [n], are in none of `leaks`, bool [n]. An image that leaks in several ways is
    in several of them."""
    is_clean: np.ndarray = ~np.isin(positions, np.concatenate([np.empty(0, dtype=np.int64), *leaks.values()]))
    return is_clean
