"""Features of one data set's images: found, or made once by whoever asks first.

The processes of one run share the pass out, those of them that see the same cache folder: the first of these holds the
folders' locks, the others write their shares beside its own. Each step is gone by all processes of the run together,
so none waits for one that has gone another way.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from thaw.config.faults import Fault, UserFault
from thaw.data.batches import Images
from thaw.data.cache import cannot_write, complete_folders
from thaw.data.contents import Entry
from thaw.data.preprocessing import Preprocessing
from thaw.features.build import Machine, Share, compute, joined
from thaw.features.crew import ALONE, Crew
from thaw.features.inference import LAYOUTS, fastest_layout
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
class Order:
    """What the first process has the others compute: the `folders`, by depth, that are not there, in a `layout`."""

    folders: Mapping[int, Path]
    layout: str


@dataclass(frozen=True)
class FeatureCache:
    """Kept in the cache folder `root`, which is to hold no more than `bound` bytes of features. `bytes_an_image` is by
    depth; `architecture` as `feature_key` takes it; `about` is what the caches say of themselves. `crew` are the
    processes that ask together."""

    root: Path
    bound: float
    images: Images
    views: Views
    preprocessing: Preprocessing
    architecture: str
    machine: Machine
    bytes_an_image: Mapping[int, int]
    about: Mapping[str, str]
    crew: Crew = ALONE

    @property
    def folder(self) -> Path:
        return self.root / "features"

    def keys(self, network: Network, depths: Sequence[int]) -> dict[int, str]:
        """In the order of `depths`. Every weight is looked at once."""
        identity, precision = self.views.identity, self.machine.precision
        return feature_keys(network, depths, self.architecture, self.preprocessing, precision, identity)

    def holds(self, key: str) -> bool:
        """For every process of the crew."""
        return all(self.crew.gather((self.folder / key).is_dir()))

    def find(self, network: Network, keys: Mapping[int, str]) -> Found:
        """What the stages up to the first depth of `keys` give; the same pass computes what the other depths give, as
        far as there is room.

        Raises:
            UserFault: where the disk is full, or the bound too narrow.
        """
        first, *_ = keys
        wanted = {self.folder / keys[depth]: depth for depth in self._fitting(list(keys))}
        seconds, removed = 0.0, list[Entry]()
        for _ in range(ATTEMPTS):
            if not all(self.crew.gather(all(target.is_dir() for target in wanted))):
                seconds += self._make(network, wanted, removed)
            features = self._read(next(iter(wanted)), first)
            if all(self.crew.gather(features is not None)):
                break
        if features is None:
            raise FileNotFoundError(next(iter(wanted)))
        return Found(features, seconds, tuple(removed))

    def _read(self, target: Path, depth: int) -> Features | None:
        try:
            return read_features(target, depth, self.views, self.images.labels, self.machine.device)
        except FileNotFoundError:
            return None

    def _make(self, network: Network, wanted: Mapping[Path, int], removed: list[Entry]) -> float:
        """Lets the crew fill the folders `wanted` that are not there. Returns the seconds that it took, 0 where others
        had filled them meanwhile, and adds what had to make room to `removed`."""
        sharing = self.crew.sharing(self.root)
        share, fault, began = Share(sharing.index(self.crew.rank), len(sharing)), None, time.perf_counter()
        if share.index:
            order = self.crew.gather(None)[sharing[0]]
            self._obey(network, order, share)
        else:
            order, fault = self._lead(network, wanted, share, removed)
        if faults := [one for one in self.crew.gather(fault) if one]:
            raise faults[0]
        return time.perf_counter() - began if order else 0.0

    def _lead(
        self, network: Network, wanted: Mapping[Path, int], share: Share, removed: list[Entry]
    ) -> tuple[Order | None, UserFault | None]:
        orders, fault = list[Order](), None

        def fill(folders: dict[Path, Path]) -> None:
            missing = {wanted[target]: folder for target, folder in folders.items()}
            removed.extend(make_room(self.root, sum(self._size(depth) for depth in missing), self.bound))
            orders.append(Order(missing, self._layout(network)))
            self.crew.gather(orders[0])
            if faults := self._obey(network, orders[0], share):
                raise faults[0]
            for folder in missing.values():
                joined(folder, share.count)

        try:
            complete_folders(list(wanted), fill)
        except UserFault as error:
            fault = error
        if not orders:  # filled by others meanwhile, or not to be filled: the crew waits for word
            self.crew.gather(None)
            self._obey(network, None, share)
        return orders[0] if orders else None, fault

    def _obey(self, network: Network, order: Order | None, share: Share) -> list[UserFault]:
        """Computes this process' share of what is ordered. Returns the faults of all processes that do."""
        fault: UserFault | None = None
        try:
            if order:
                what = (network, self.preprocessing, self.images, self.views, self.machine)
                compute(*what, LAYOUTS[order.layout], order.folders, self.about, share)
        except OSError as error:
            fault = cannot_write(self.folder, error)
        return [one for one in self.crew.gather(fault) if one]

    def _layout(self, network: Network) -> str:
        """The first process measures for all: another layout rounds differently."""
        remembered, size = self.root / "measured", self.preprocessing.size
        fastest = fastest_layout(network, size, self.architecture, remembered, self.machine.device)
        return next(name for name, layout in LAYOUTS.items() if layout is fastest)

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
