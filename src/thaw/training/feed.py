"""The loaders of one run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from torch.utils.data import DataLoader

from thaw.config.faults import Problem, UserError, format_names
from thaw.config.schema import Recipe, TrainerConfig
from thaw.data.batches import Batch, EpochBatchSampler, ImageDataset, SequentialBatchSampler, build_dataloader
from thaw.data.samples import Samples
from thaw.data.views import CROP_KINDS, FLIP_KINDS
from thaw.training.hardware import resolve_process_topology
from thaw.training.process import available_cpus
from thaw.training.supply import BatchLoader, BatchSource

MAX_WORKERS = 8
Loader = BatchLoader | DataLoader[Batch]


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
    if trainer.workers is not None:
        return trainer.workers
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
