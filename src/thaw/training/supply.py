"""Where the batches of an epoch come from: the images, or what the frozen stages have made of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from torch.utils.data import DataLoader

from thaw.config.faults import UserFault
from thaw.data.batches import Batch, EpochBatches, InOrder
from thaw.features.cache import FeatureCache
from thaw.features.decision import Decision
from thaw.features.table import Features
from thaw.network.network import Network
from thaw.strategy.plan import PhasePlan, Plan


@dataclass
class Supply:
    """`features` are those of the phase that was entered last, None where it trains on images. `seconds` were spent on
    computing features. With `required`, what cannot be cached ends the run."""

    network: Network
    plan: Plan
    decisions: Mapping[str, Decision]
    cache: FeatureCache
    required: bool
    features: Features | None = None
    key: str = ""
    seconds: float = 0.0

    def enter(self, phase: PhasePlan) -> None:
        """Raises UserFault where features are required and the disk is full."""
        depth = self.decisions[phase.name].depth
        if not depth:
            return self._train_on_images()
        try:
            self._take(self.cache.keys(self.network, [depth, *self._later(phase, depth)]))
        except UserFault as fault:
            if self.required:
                raise
            print(f"phase {phase.name} computes its frozen stages in every epoch, since {fault}")
            self._train_on_images()

    def settle(self) -> None:
        """Takes the deepest features that are at hand for the weights that the network holds now, if any."""
        depths = sorted({one.depth for one in self.decisions.values()} - {0}, reverse=True)
        found = {depth: key for depth, key in self.cache.keys(self.network, depths).items() if self.cache.holds(key)}
        if found:
            self._take(dict([next(iter(found.items()))]))
        else:
            self._train_on_images()

    def _train_on_images(self) -> None:
        self.features, self.key = None, ""

    def _take(self, keys: dict[int, str]) -> None:
        key = next(iter(keys.values()))
        if key == self.key:
            return
        found = self.cache.find(self.network, keys)
        self.features, self.key, self.seconds = found.features, key, self.seconds + found.seconds
        print("\n".join(found.told()))

    def _later(self, phase: PhasePlan, depth: int) -> list[int]:
        """What later phases will need of weights that nothing trains until then: the same pass gives it."""
        later = [one for one in self.plan.phases if one.start > phase.start]
        depths = {self.decisions[one.name].depth for one in later if self.plan.untouched(one.still_stages, one)}
        return sorted(depths - {0, depth}, reverse=True)


@dataclass(frozen=True)
class Supplied:
    """The batches of `order`, of which `images` loads the pixels."""

    images: DataLoader[Batch]
    order: EpochBatches | InOrder
    supply: Supply

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[Batch]:
        # A generator, so that this is asked with the first batch: Lightning makes an iterator before the first phase.
        features = self.supply.features
        yield from self.images if features is None else features.batches(self.order)


class Entering(Callback):
    """Enters each phase before its first epoch, and that of an epoch with which a resumed run begins."""

    def __init__(self, supply: Supply) -> None:
        self.supply, self.entered = supply, ""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        phase = self.supply.plan.at(trainer.current_epoch)
        if phase.name != self.entered:
            self.supply.enter(phase)
            self.entered = phase.name
