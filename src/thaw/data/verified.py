"""The files of a data set, decoded one by one and not kept."""

from __future__ import annotations

import numpy as np
from PIL import Image

from thaw.data.lookalike import difference_hash
from thaw.data.problems import Problem, broken, printable, problems_in
from thaw.data.samples import Samples
from thaw.data.store import each_decoded, trimmed


def verified(samples: Samples, near_duplicates: bool) -> list[Problem]:
    """All problems of `samples`. Every file is read and decoded, also one that a store was built from."""
    found = list(each_decoded(samples, lambda image: _seen(image, near_duplicates)))
    pairs = zip(samples.samples, found, strict=True)
    reasons = {printable(sample.path): why for sample, why in pairs if isinstance(why, str)}
    seen = {position: one for position, one in enumerate(found) if not isinstance(one, str)}
    sizes = np.array([size for size, _ in seen.values()], dtype=np.int64).reshape(-1, 2)
    looks = np.array([look for _, look in seen.values()]) if near_duplicates else None
    usable = samples.only(list(seen)) if reasons else samples
    return [*broken(reasons), *problems_in(usable, sizes, looks)]


def _seen(image: Image.Image, near_duplicates: bool) -> tuple[tuple[int, int], np.ndarray | None]:
    """Height and width, and the hash that near duplicates share."""
    return (image.height, image.width), difference_hash(trimmed(image)) if near_duplicates else None
