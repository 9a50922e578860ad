"""Test images that a network may have seen in training: copies of train and validation images, and images of groups
that are also there."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from thaw.data.samples import Samples

TRAINING_SPLITS = ("train", "val")
LEAK_DESCRIPTIONS = {
    "copies": "equal files in train or val",
    "near_copies": "near copies in train or val",
    "groups": "a group that is also in train or val",
}


def find_leaks(samples: Samples, near_copies: Iterable[tuple[str, str]] = ()) -> dict[str, np.ndarray]:
    """Return the positions of the test images that leak, int64, by kind: a key of LEAK_DESCRIPTIONS. Kinds without an
    image are left out.

    `near_copies` are pairs of paths of images in different splits that look alike.
    """
    test = samples.get_positions("test")
    hashes = np.array(samples.hashes)
    paths = np.array([sample.path for sample in samples.samples])
    training = np.concatenate([samples.get_positions(split) for split in TRAINING_SPLITS])
    leaks = {"copies": test[np.isin(hashes[test], hashes[training])]}
    seen_paths = set(paths[training].tolist())
    similar_paths = {path for pair in near_copies for path, other in (pair, pair[::-1]) if other in seen_paths}
    leaks["near_copies"] = test[[path in similar_paths for path in paths[test].tolist()]]
    if samples.has_groups:
        groups = samples.get_groups()
        leaks["groups"] = test[np.isin(groups[test], groups[training])]
    return {kind: positions for kind, positions in leaks.items() if len(positions)}
