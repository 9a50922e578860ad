"""Features of one data set's images: found, or made once by whoever asks first."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from thaw.config.faults import Fault, UserFault
from thaw.data.batches import Images
from thaw.data.cache import complete_folders
from thaw.data.contents import Entry
from thaw.data.preprocessing import Preprocessing
from thaw.features.build import Machine, compute
from thaw.features.inference import fastest_layout
from thaw.features.key import feature_keys
from thaw.features.shelf import make_room
from thaw.features.table import Features, read_features
from thaw.features.views import Views
from thaw.network.network import Network

ATTEMPTS = 3  # another process may make room by taking away what was just found


@dataclass(frozen=True)
class Found:
    """`seconds` were spent on computing `features`, 0 where they were there; `removed` were other caches, to make
    room."""

    features: Features
    seconds: float
    removed: tuple[Entry, ...]

    def told(self) -> Iterator[str]:
        count, how = len(self.features.values), "found in the cache"
        if self.removed:
            size = sum(one.size for one in self.removed) / 2**20
            counted = "a feature cache" if len(self.removed) == 1 else f"{len(self.removed)} feature caches"
            yield f"{counted}, used longest ago, made room: {size:,.0f} MiB (cache.gib)"
        if self.seconds:
            how = f"computed in {self.seconds:.1f} s"
        yield f"features of {count:,} images {how}, held {self.features.held}"


@dataclass(frozen=True)
class FeatureCache:
    """Kept in the cache folder `root`, which is to hold no more than `bound` bytes of features. `bytes_an_image` is by
    depth; `architecture` as `feature_key` takes it; `about` is what the caches say of themselves."""

    root: Path
    bound: float
    images: Images
    views: Views
    preprocessing: Preprocessing
    architecture: str
    machine: Machine
    bytes_an_image: Mapping[int, int]
    about: Mapping[str, str]

    @property
    def folder(self) -> Path:
        return self.root / "features"

    def keys(self, network: Network, depths: Sequence[int]) -> dict[int, str]:
        """In the order of `depths`. Every weight is looked at once."""
        identity, precision = self.views.identity, self.machine.precision
        return feature_keys(network, depths, self.architecture, self.preprocessing, precision, identity)

    def holds(self, key: str) -> bool:
        return (self.folder / key).is_dir()

    def find(self, network: Network, keys: Mapping[int, str]) -> Found:
        """What the stages up to the first depth of `keys` give; the same pass computes what the other depths give, as
        far as there is room.

        Raises:
            UserFault: where the disk is full, or the bound too narrow.
        """
        first, *_ = keys
        wanted = {self.folder / keys[depth]: depth for depth in self._fitting(list(keys))}
        target, seconds, removed = next(iter(wanted)), list[float](), list[Entry]()

        def fill(folders: dict[Path, Path]) -> None:
            began = time.perf_counter()
            missing = {wanted[target]: folder for target, folder in folders.items()}
            removed.extend(make_room(self.root, sum(self._size(depth) for depth in missing), self.bound))
            self._compute(network, missing)
            seconds.append(time.perf_counter() - began)

        for attempt in range(ATTEMPTS):
            complete_folders(list(wanted), fill)
            try:
                features = read_features(target, first, self.views, self.images.labels, self.machine.device)
                break
            except FileNotFoundError:
                if attempt == ATTEMPTS - 1:
                    raise
        return Found(features, sum(seconds), tuple(removed))

    def _compute(self, network: Network, folders: Mapping[int, Path]) -> None:
        remembered = self.root / "measured"
        layout = fastest_layout(network, self.preprocessing.size, self.architecture, remembered, self.machine.device)
        compute(network, self.preprocessing, self.images, self.views, self.machine, layout, folders, self.about)

    def _size(self, depth: int) -> int:
        return self.views.row_count * self.bytes_an_image[depth]

    def _fitting(self, depths: Sequence[int]) -> list[int]:
        first, *others = depths
        if self._size(first) > self.bound:
            size = self._size(first) / 2**30
            fault = Fault("cache.gib", f"{self.bound / 2**30:g}", fix=f"cache.gib={2 * size:.2g}")
            raise UserFault(f"the features would take {size:.3g} GiB of the disk.", [fault])
        chosen, left = [first], self.bound - self._size(first)
        for depth in others:
            if self._size(depth) <= left:
                chosen.append(depth)
                left -= self._size(depth)
        return chosen
