"""The data loaders of a run: batches of images or of cached features, phase by phase."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from torch.utils.data import DataLoader

from thaw.config.errors import Problem, UserError, format_names
from thaw.config.schema import Recipe, TrainerConfig
from thaw.data.augmentation import CROP_KINDS, FLIP_KINDS
from thaw.data.batches import Batch, EpochBatchSampler, ImageDataset, SequentialBatchSampler, build_dataloader
from thaw.data.samples import Samples
from thaw.features.cache import FeatureCache
from thaw.features.cache_policy import Decision
from thaw.features.cached_features import CachedFeatures
from thaw.models.network import Network
from thaw.strategy.plan import PhasePlan, Plan
from thaw.system.devices import Devices
from thaw.system.process import available_cpus, seed_everything
from thaw.system.reporter import SILENT, Reporter
from thaw.training.module import ClassificationModule

MAX_WORKERS = 8


@dataclass
class BatchSource:
    """Where the batches of the current phase come from: images, or features from the cache.

    `features` are None while batches are images. `seconds` is the time spent computing features.
    """

    network: Network
    plan: Plan
    decisions: Mapping[str, Decision]
    cache: FeatureCache
    is_cache_required: bool
    reporter: Reporter = SILENT
    features: CachedFeatures | None = field(default=None, init=False)
    seconds: float = field(default=0.0, init=False)
    _cache_key: str = field(default="", init=False)

    def prepare_phase(self, phase: PhasePlan) -> None:
        """Load, or compute, the features that `phase` trains on; use images if it has none.

        Raises:
            UserError: if features are required and cannot be written.
        """
        depth = self.decisions[phase.name].depth
        if not depth:
            self._use_images()
            return
        try:
            self._load_features(self.cache.compute_keys(self.network, [depth, *self._find_later_depths(phase, depth)]))
        except UserError as error:
            if self.is_cache_required:
                raise
            self.reporter.write(f"phase {phase.name} computes its frozen stages in every epoch: {error}")
            self._use_images()

    def use_cached(self) -> None:
        """Use the deepest cached features of the network's current weights; use images if there are none."""
        depths = sorted({decision.depth for decision in self.decisions.values()} - {0}, reverse=True)
        for depth, key in self.cache.compute_keys(self.network, depths).items():
            if self.cache.has_key(key):
                self._load_features({depth: key})
                return
        self._use_images()

    def _use_images(self) -> None:
        self.features, self._cache_key = None, ""

    def _load_features(self, keys: dict[int, str]) -> None:
        key = next(iter(keys.values()))
        if key == self._cache_key:
            return
        result = self.cache.get_or_compute(self.network, keys)
        self.features, self._cache_key, self.seconds = result.features, key, self.seconds + result.seconds
        self.reporter.write("\n".join(result.describe()))

    def _find_later_depths(self, phase: PhasePlan, depth: int) -> list[int]:
        """Find the depths that later phases need and whose weights do not change until then.

        The same pass over the images computes them.
        """
        later_phases = [later_phase for later_phase in self.plan.phases if later_phase.start > phase.start]
        depths = {
            self.decisions[later_phase.name].depth
            for later_phase in later_phases
            if self.plan.is_pretrained_until(later_phase.num_static_stages, later_phase)
        }
        return sorted(depths - {0, depth}, reverse=True)


@dataclass(frozen=True)
class BatchLoader:
    """Iterates over the batches of `batch_sampler`, from `image_loader` or from the features of `batch_source`."""

    image_loader: DataLoader[Batch]
    batch_sampler: EpochBatchSampler | SequentialBatchSampler
    batch_source: BatchSource

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Batch]:
        features = self.batch_source.features
        yield from self.image_loader if features is None else features.iter_batches(self.batch_sampler)


Loader = BatchLoader | DataLoader[Batch]


@dataclass(frozen=True)
class EpochLoader:
    """Yields one iterator, over all batches of an epoch: ClassificationModule describes why."""

    batches: BatchIterable

    @property
    def batch_sampler(self) -> Any:
        """The sampler of the batches."""
        return self.batches.batch_sampler

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Iterator[Batch]]:
        yield iter(self.batches)


class BatchIterable(Protocol):
    """Batches, and the sampler that chose their images."""

    @property
    def batch_sampler(self) -> Any: ...

    def __iter__(self) -> Iterator[Batch]: ...


@dataclass(frozen=True)
class DataLoaders:
    """The loaders of a run. `val` is None if the data set has no validation images.

    `predict_loaders` has the loader of each split for the predictions after training; with test-time augmentation its
    batches hold several views of each image.
    """

    train: BatchLoader
    val: BatchLoader | None
    test: BatchLoader
    predict_loaders: Mapping[str, Loader]


def build_dataloaders(
    recipe: Recipe, samples: Samples, images: ImageDataset, batch_source: BatchSource, devices: Devices, rank: int = 0
) -> DataLoaders:
    """Build the loaders of process `rank` of a run.

    Raises:
        UserError: if a split has too few images for the processes, or all test-time views would be the same.
    """
    num_workers, world_size = resolve_num_workers(recipe.trainer, devices.is_on_gpu), devices.topology.world_size
    _check_enough_images(samples, world_size)

    def build_split_loader(
        batch_sampler: EpochBatchSampler | SequentialBatchSampler, images: ImageDataset = images
    ) -> DataLoader[Batch]:
        return build_dataloader(images, batch_sampler, num_workers, devices.is_on_gpu)

    train_sampler = _build_train_sampler(recipe, samples, rank, world_size)
    eval_samplers = _build_eval_samplers(recipe.trainer.batch_size, samples, rank, world_size)
    eval_loaders = {
        split: BatchLoader(build_split_loader(batch_sampler), batch_sampler, batch_source)
        for split, batch_sampler in eval_samplers.items()
    }
    predict_loaders: Mapping[str, Loader] = eval_loaders
    view_kind = recipe.trainer.test_time_augmentation
    if view_kind != "none":
        _check_views_differ(view_kind, images, [*samples.get_positions("val"), *samples.get_positions("test")])
        view_images = replace(images, views=view_kind)
        predict_loaders = {
            split: build_split_loader(batch_sampler, view_images) for split, batch_sampler in eval_samplers.items()
        }
    train_loader = BatchLoader(build_split_loader(train_sampler), train_sampler, batch_source)
    return DataLoaders(train_loader, eval_loaders.get("val"), eval_loaders["test"], predict_loaders)


def _build_train_sampler(recipe: Recipe, samples: Samples, rank: int, world_size: int) -> EpochBatchSampler:
    labels = samples.get_labels() if recipe.trainer.class_balance == "sampling" else None
    positions, batch_size = samples.get_positions("train"), recipe.trainer.batch_size
    return EpochBatchSampler(positions, batch_size, recipe.seed, rank=rank, world_size=world_size, labels=labels)


def _build_eval_samplers(
    batch_size: int, samples: Samples, rank: int, world_size: int
) -> dict[str, SequentialBatchSampler]:
    """Build a sampler for each of val and test that has images."""
    positions = {split: samples.get_positions(split) for split in ("val", "test")}
    return {
        split: SequentialBatchSampler(split_positions, batch_size, rank, world_size)
        for split, split_positions in positions.items()
        if len(split_positions)
    }


def resolve_num_workers(trainer: TrainerConfig, is_on_gpu: bool) -> int:
    """Return how many processes load batches. On a CPU they would take the cores of the training step."""
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
    problem = Problem(f"trainer.test_time_augmentation={view_kind}", got, fix=fix)
    raise UserError("corner crops and center crop would be the same.", [problem])


def _check_enough_images(samples: Samples, world_size: int) -> None:
    small_splits = {split: count for split, count in samples.count_per_split().items() if 0 < count < 2 * world_size}
    if world_size > 1 and small_splits:
        got = format_names(f"{count} {split} images" for split, count in small_splits.items())
        problem = Problem(
            f"{world_size} processes", got, f"at least {2 * world_size} of each split", "trainer.devices=1"
        )
        raise UserError("too few images for so many devices.", [problem])


class EpochPreparation(Callback):
    """Prepares the inputs of each epoch and seeds the epoch's random numbers.

    Everything is a function of seed, epoch and rank, so a resumed run draws the same numbers.
    """

    def __init__(self, batch_source: BatchSource, seed: int) -> None:
        self.batch_source, self.seed, self.prepared_phase = batch_source, seed, ""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Prepare the phase if it is new, also in the first epoch of a resumed run."""
        assert isinstance(pl_module, ClassificationModule)
        phase = pl_module.plan.get_phase(trainer.current_epoch)
        if phase.name != self.prepared_phase:
            self.batch_source.prepare_phase(phase)
            self.prepared_phase = phase.name
        seed_everything(self.seed, "epoch", trainer.current_epoch, trainer.global_rank)
