"""The loaders of one run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from torch.utils.data import DataLoader

from thaw.config.faults import Fault, UserFault, listing
from thaw.config.schema import Recipe, Trainer
from thaw.data.batches import Batch, EpochBatches, Images, InOrder, loader
from thaw.data.samples import Samples
from thaw.data.views import CROPPED, MIRRORED
from thaw.training.hardware import layout_of
from thaw.training.process import cores
from thaw.training.supply import Supplied, Supply

MOST_WORKERS = 8
Loader = Supplied | DataLoader[Batch]


@dataclass(frozen=True)
class Feed:
    """`val` is None where the data set has no validation images. `finals`, by split, is what the predictions at the end
    are made from: with test-time augmentation several views an image. `images` is what all cut from."""

    train: Supplied
    val: Supplied | None
    test: Supplied
    finals: Mapping[str, Loader]
    images: Images


def feed_of(recipe: Recipe, samples: Samples, images: Images, supply: Supply, on_gpu: bool, rank: int = 0) -> Feed:
    """`rank`: which of the run's processes this is."""
    workers, size = worker_count(recipe.trainer, on_gpu), recipe.trainer.batch_size
    world = layout_of(recipe.trainer).processes
    _check_enough(samples, world)

    def loaded(order: EpochBatches | InOrder, images: Images = images) -> DataLoader[Batch]:
        return loader(images, order, workers, on_gpu)

    labels = samples.labels() if recipe.trainer.class_balance == "sampling" else None
    batches = EpochBatches(samples.of("train"), size, recipe.seed, rank=rank, world=world, labels=labels)
    orders = {split: InOrder(samples.of(split), size, rank, world) for split in ("val", "test")}
    orders = {split: order for split, order in orders.items() if len(order.positions)}
    evaluated = {split: Supplied(loaded(order), order, supply) for split, order in orders.items()}
    finals: Mapping[str, Loader] = evaluated
    views = recipe.trainer.test_time_augmentation
    if views != "none":
        _check_views_differ(views, images, [*samples.of("val"), *samples.of("test")])
        finals = {split: loaded(order, replace(images, views=views)) for split, order in orders.items()}
    train = Supplied(loaded(batches), batches, supply)
    return Feed(train, evaluated.get("val"), evaluated["test"], finals, images)


def worker_count(trainer: Trainer, on_gpu: bool) -> int:
    """On a CPU they would take the cores of the step itself."""
    if trainer.workers is not None:
        return trainer.workers
    return min(MOST_WORKERS, cores()) if on_gpu else 0


def _check_views_differ(kind: str, images: Images, positions: Iterable[int]) -> None:
    if kind not in CROPPED or any(max(images.store[int(one)].shape[:2]) > images.size for one in positions):
        return
    got = f"images of {images.size} x {images.size} pixels, all of which the network sees"
    fix = f"dataset.crop=0.875, or trainer.test_time_augmentation={'flip' if kind in MIRRORED else 'none'}"
    raise UserFault(
        "corners and centre would be the same.", [Fault(f"trainer.test_time_augmentation={kind}", got, fix=fix)]
    )


def _check_enough(samples: Samples, world: int) -> None:
    few = {split: count for split, count in samples.counts().items() if 0 < count < 2 * world}
    if world > 1 and few:
        got = listing(f"{count} {split} images" for split, count in few.items())
        raise UserFault(
            "too few images for so many devices.",
            [Fault(f"{world} processes", got, f"at least {2 * world} of each split", "trainer.devices=1")],
        )
