"""Where the batches of an epoch come from: the images, or what the frozen stages have made of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from torch.utils.data import DataLoader

from thaw.config.faults import UserError
from thaw.data.batches import Batch, EpochBatchSampler, SequentialBatchSampler
from thaw.features.cache import FeatureCache
from thaw.features.decision import Decision
from thaw.features.table import CachedFeatures
from thaw.network.network import Network
from thaw.strategy.plan import PhasePlan, Plan


@dataclass
class BatchSource:
    """`features` are those of the phase that was entered last, None where it trains on images. `seconds` were spent on
    computing features. With `required`, what cannot be cached ends the run."""

    network: Network
    plan: Plan
    decisions: Mapping[str, Decision]
    cache: FeatureCache
    is_cache_required: bool
    features: CachedFeatures | None = None
    cache_key: str = ""
    seconds: float = 0.0

    def prepare_phase(self, phase: PhasePlan) -> None:
        """Raises UserFault where features are required and the disk is full."""
        depth = self.decisions[phase.name].depth
        if not depth:
            return self._use_images()
        try:
            self._load_features(self.cache.compute_keys(self.network, [depth, *self._find_later_depths(phase, depth)]))
        except UserError as error:
            if self.is_cache_required:
                raise
            print(f"phase {phase.name} computes its frozen stages in every epoch, since {error}")
            self._use_images()

    def use_cached(self) -> None:
        """Takes the deepest features that are at hand for the weights that the network holds now, if any."""
        depths = sorted({decision.depth for decision in self.decisions.values()} - {0}, reverse=True)
        cached_keys = {
            depth: key
            for depth, key in self.cache.compute_keys(self.network, depths).items()
            if self.cache.has_key(key)
        }
        if cached_keys:
            self._load_features(dict([next(iter(cached_keys.items()))]))
        else:
            self._use_images()

    def _use_images(self) -> None:
        self.features, self.cache_key = None, ""

    def _load_features(self, keys: dict[int, str]) -> None:
        key = next(iter(keys.values()))
        if key == self.cache_key:
            return
        result = self.cache.get_or_compute(self.network, keys)
        self.features, self.cache_key, self.seconds = result.features, key, self.seconds + result.seconds
        print("\n".join(result.describe()))

    def _find_later_depths(self, phase: PhasePlan, depth: int) -> list[int]:
        """What later phases will need of weights that nothing trains until then: the same pass gives it."""
        later_phases = [later_phase for later_phase in self.plan.phases if later_phase.start > phase.start]
        depths = {
            self.decisions[later_phase.name].depth
            for later_phase in later_phases
            if self.plan.is_pretrained_until(later_phase.num_static_stages, later_phase)
        }
        return sorted(depths - {0, depth}, reverse=True)


@dataclass(frozen=True)
class BatchLoader:
    """The batches of `order`, of which `images` loads the pixels."""

    image_loader: DataLoader[Batch]
    batch_sampler: EpochBatchSampler | SequentialBatchSampler
    batch_source: BatchSource

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Batch]:
        # A generator, so that this is asked with the first batch: Lightning makes an iterator before the first phase.
        features = self.batch_source.features
        yield from self.image_loader if features is None else features.iter_batches(self.batch_sampler)


class PhasePreparation(Callback):
    """Enters each phase before its first epoch, and that of an epoch with which a resumed run begins."""

    def __init__(self, batch_source: BatchSource) -> None:
        self.batch_source, self.prepared_phase = batch_source, ""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        phase = self.batch_source.plan.get_phase(trainer.current_epoch)
        if phase.name != self.prepared_phase:
            self.batch_source.prepare_phase(phase)
            self.prepared_phase = phase.name
