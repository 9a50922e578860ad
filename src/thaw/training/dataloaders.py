"""The loaders of one run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from torch.utils.data import DataLoader

from thaw.config.errors import Problem, UserError, format_names
from thaw.config.schema import Recipe, TrainerConfig
from thaw.data.batches import Batch, EpochBatchSampler, ImageDataset, SequentialBatchSampler, build_dataloader
from thaw.data.samples import Samples
from thaw.data.test_time_augmentation import CROP_KINDS, FLIP_KINDS
from thaw.features.cache import FeatureCache
from thaw.features.cache_policy import Decision
from thaw.features.cached_features import CachedFeatures
from thaw.models.network import Network
from thaw.strategy.plan import PhasePlan, Plan
from thaw.system.devices import resolve_process_topology
from thaw.system.process import available_cpus

MAX_WORKERS = 8


@dataclass(frozen=True)
class DataLoaders:
    """`val` is None where the data set has no validation images. `finals`, by split, is what the predictions at the end
    are made from: with test-time augmentation several views an image. `images` is what all cut from."""

    train: BatchLoader
    val: BatchLoader | None
    test: BatchLoader
    predict_loaders: Mapping[str, Loader]
    images: ImageDataset


def build_dataloaders(
    recipe: Recipe, samples: Samples, images: ImageDataset, batch_source: BatchSource, is_on_gpu: bool, rank: int = 0
) -> DataLoaders:
    """`rank`: which of the run's processes this is."""
    num_workers, batch_size = resolve_num_workers(recipe.trainer, is_on_gpu), recipe.trainer.batch_size
    world_size = resolve_process_topology(recipe.trainer).world_size
    _check_enough_images(samples, world_size)

    def build_split_loader(
        batch_sampler: EpochBatchSampler | SequentialBatchSampler, images: ImageDataset = images
    ) -> DataLoader[Batch]:
        return build_dataloader(images, batch_sampler, num_workers, is_on_gpu)

    labels = samples.get_labels() if recipe.trainer.class_balance == "sampling" else None
    train_batch_sampler = EpochBatchSampler(
        samples.get_positions("train"), batch_size, recipe.seed, rank=rank, world_size=world_size, labels=labels
    )
    batch_samplers = {
        split: SequentialBatchSampler(samples.get_positions(split), batch_size, rank, world_size)
        for split in ("val", "test")
    }
    batch_samplers = {
        split: batch_sampler for split, batch_sampler in batch_samplers.items() if len(batch_sampler.positions)
    }
    eval_loaders = {
        split: BatchLoader(build_split_loader(batch_sampler), batch_sampler, batch_source)
        for split, batch_sampler in batch_samplers.items()
    }
    predict_loaders: Mapping[str, Loader] = eval_loaders
    view_kind = recipe.trainer.test_time_augmentation
    if view_kind != "none":
        _check_views_differ(view_kind, images, [*samples.get_positions("val"), *samples.get_positions("test")])
        predict_loaders = {
            split: build_split_loader(batch_sampler, replace(images, views=view_kind))
            for split, batch_sampler in batch_samplers.items()
        }
    train_loader = BatchLoader(build_split_loader(train_batch_sampler), train_batch_sampler, batch_source)
    return DataLoaders(train_loader, eval_loaders.get("val"), eval_loaders["test"], predict_loaders, images)


def resolve_num_workers(trainer: TrainerConfig, is_on_gpu: bool) -> int:
    """On a CPU they would take the cores of the step itself."""
    if trainer.num_workers is not None:
        return trainer.num_workers
    return min(MAX_WORKERS, available_cpus()) if is_on_gpu else 0


def _check_views_differ(view_kind: str, images: ImageDataset, positions: Iterable[int]) -> None:
    if view_kind not in CROP_KINDS or any(
        max(images.store[int(position)].shape[:2]) > images.size for position in positions
    ):
        return
    got = f"images of {images.size} x {images.size} pixels, all of which the network sees"
    fix = f"dataset.crop=0.875, or trainer.test_time_augmentation={'flip' if view_kind in FLIP_KINDS else 'none'}"
    raise UserError(
        "corners and centre would be the same.", [Problem(f"trainer.test_time_augmentation={view_kind}", got, fix=fix)]
    )


def _check_enough_images(samples: Samples, world_size: int) -> None:
    small_splits = {split: count for split, count in samples.count_per_split().items() if 0 < count < 2 * world_size}
    if world_size > 1 and small_splits:
        got = format_names(f"{count} {split} images" for split, count in small_splits.items())
        raise UserError(
            "too few images for so many devices.",
            [Problem(f"{world_size} processes", got, f"at least {2 * world_size} of each split", "trainer.devices=1")],
        )


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


Loader = BatchLoader | DataLoader[Batch]
