"""Images decoded anew at every access: what the store does without taking disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from thaw.data.image import decode_image
from thaw.data.preprocessing import Preprocessing, resize_image
from thaw.data.samples import Samples
from thaw.data.store import check_broken, crop_elongated, iter_decoded


@dataclass(frozen=True)
class LazyImageStore:
    """The same pixels as `Store`, in the same order. `sizes` is int64 [samples, 2], height and width as decoded;
    `broken`: position of an image that cannot be decoded -> why."""

    samples: Samples
    preprocessing: Preprocessing
    sizes: np.ndarray
    broken: Mapping[int, str] = field(default_factory=dict)

    def __getitem__(self, index: int) -> np.ndarray:
        """uint8 [height, width, 3]."""
        image = decode_image(self.samples.root / self.samples.samples[index].path)
        return resize_image(crop_elongated(image), self.preprocessing)

    def subset(self, positions: Sequence[int]) -> LazyImageStore:
        return LazyImageStore(
            self.samples.subset(positions), self.preprocessing, self.sizes[np.asarray(positions, np.int64)]
        )


def open_lazy_image_store(samples: Samples, preprocessing: Preprocessing, skip_broken: bool) -> LazyImageStore:
    """Decodes every image once to find the broken ones before training starts.

    Raises:
        UserFault: naming the images that cannot be decoded, unless `skip_broken`.
    """
    sizes_or_reasons = list(iter_decoded(samples, lambda image: (image.height, image.width)))
    broken = {
        position: size_or_reason
        for position, size_or_reason in enumerate(sizes_or_reasons)
        if isinstance(size_or_reason, str)
    }
    check_broken(samples, broken, skip_broken)
    sizes = np.array(
        [(0, 0) if isinstance(size_or_reason, str) else size_or_reason for size_or_reason in sizes_or_reasons],
        dtype=np.int64,
    )
    return LazyImageStore(samples, preprocessing, sizes, broken)


def estimate_store_bytes(samples: Samples, preprocessing: Preprocessing) -> int:
    """About what the store will take: images of 4:3."""
    return round(len(samples.samples) * preprocessing.resize**2 * 3 * 4 / 3)
