"""Find the nearest images of each image in feature space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.neighbors import NearestNeighbors

NUM_NEIGHBORS = 50
MAX_REFERENCES = 10_000  # images that neighbors are searched among: 50,000 x 10,000 distances of 1280 numbers take 30 s


@dataclass(frozen=True)
class Neighbors:
    """The nearest other images of each image, nearest first.

    Attributes:
        indices: int64 [images, neighbors].
        distances: float32 [images, neighbors], Euclidean distances of feature vectors of length 1, from 0 to 2.
        references: int64 [references], the images that the neighbors were searched among.
    """

    indices: np.ndarray
    distances: np.ndarray
    references: np.ndarray

    @property
    def is_sampled(self) -> bool:
        """Whether the neighbors were searched among a part of the images only."""
        return len(self.references) < len(self.indices)


def find_neighbors(
    features: np.ndarray, num_neighbors: int = NUM_NEIGHBORS, max_references: int = MAX_REFERENCES
) -> Neighbors:
    """Find the nearest neighbors of each image by the angle between feature vectors, float [images, width].

    With more than `max_references` images, neighbors are searched among that many, drawn evenly: time and memory then
    grow linearly with the images. An image is no neighbor of itself.
    """
    num_images = len(features)
    references = np.arange(num_images)
    if num_images > max_references:
        references = np.sort(np.random.default_rng(0).choice(num_images, max_references, replace=False))
    unit_vectors = normalize_rows(features)
    search = NearestNeighbors(n_neighbors=min(num_neighbors + 1, len(references)), algorithm="brute")
    distances, positions = search.fit(unit_vectors[references]).kneighbors(unit_vectors)
    indices = references[positions]
    order = np.argsort(indices == np.arange(num_images)[:, None], axis=1, kind="stable")  # the image itself comes last
    indices, distances = (np.take_along_axis(values, order, 1)[:, :-1] for values in (indices, distances))
    return Neighbors(indices.astype(np.int64), distances.astype(np.float32), references)


def normalize_rows(features: np.ndarray) -> np.ndarray:
    """Return `features` [images, width] as float32 vectors of length 1; a vector of zeros stays one."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return (features / np.where(lengths > 0, lengths, 1)).astype(np.float32)
