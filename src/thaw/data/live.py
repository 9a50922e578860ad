"""Images decoded anew at every access: what the store does without taking disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from thaw.data.image import decoded
from thaw.data.preprocessing import Preprocessing, resized
from thaw.data.samples import Samples
from thaw.data.store import check_broken, each_decoded, trimmed


@dataclass(frozen=True)
class Live:
    """The same pixels as `Store`, in the same order. `sizes` is int64 [samples, 2], height and width as decoded;
    `broken`: position of an image that cannot be decoded -> why."""

    samples: Samples
    preprocessing: Preprocessing
    sizes: np.ndarray
    broken: Mapping[int, str] = field(default_factory=dict)

    def __getitem__(self, index: int) -> np.ndarray:
        """uint8 [height, width, 3]."""
        image = decoded(self.samples.root / self.samples.samples[index].path)
        return resized(trimmed(image), self.preprocessing)

    def only(self, positions: Sequence[int]) -> Live:
        return Live(self.samples.only(positions), self.preprocessing, self.sizes[np.asarray(positions, np.int64)])


def live(samples: Samples, preprocessing: Preprocessing, skip_broken: bool) -> Live:
    """Decodes every image once to find the broken ones before training starts.

    Raises:
        UserFault: naming the images that cannot be decoded, unless `skip_broken`.
    """
    found = list(each_decoded(samples, lambda image: (image.height, image.width)))
    broken = {position: one for position, one in enumerate(found) if isinstance(one, str)}
    check_broken(samples, broken, skip_broken)
    sizes = np.array([(0, 0) if isinstance(one, str) else one for one in found], dtype=np.int64)
    return Live(samples, preprocessing, sizes, broken)


def bytes_of_store(samples: Samples, preprocessing: Preprocessing) -> int:
    """About what the store will take: images of 4:3."""
    return round(len(samples.samples) * preprocessing.resize**2 * 3 * 4 / 3)
