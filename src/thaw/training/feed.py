"""The loaders of one run."""

from __future__ import annotations

from dataclasses import dataclass

from torch.utils.data import DataLoader

from thaw.config.schema import Augment, Recipe
from thaw.data.augmentation import Augmentation
from thaw.data.batches import Batch, EpochBatches, Images, InOrder, loader
from thaw.data.live import Live
from thaw.data.samples import Samples
from thaw.data.store import Store
from thaw.training.process import cores

MOST_WORKERS = 8


@dataclass(frozen=True)
class Feed:
    """`val` is None where the data set has no validation images. `images` is what all three cut from."""

    train: DataLoader[Batch]
    val: DataLoader[Batch] | None
    test: DataLoader[Batch]
    images: Images


def feed_of(recipe: Recipe, samples: Samples, store: Store | Live, side: int, on_gpu: bool) -> Feed:
    """`side`: pixels, of what the network sees."""
    images = Images(store, samples.labels(), side, augmentation_of(recipe.augment), recipe.seed)
    workers = recipe.trainer.workers
    if workers is None:
        workers = min(MOST_WORKERS, cores()) if on_gpu else 0  # on a CPU they would take the cores of the step itself
    size = recipe.trainer.batch_size

    def in_order(split: str) -> DataLoader[Batch]:
        return loader(images, InOrder(samples.of(split), size), workers, on_gpu)

    train = loader(images, EpochBatches(samples.of("train"), size, recipe.seed), workers, on_gpu)
    val = in_order("val") if samples.counts()["val"] else None
    return Feed(train, val, in_order("test"), images)


def augmentation_of(augment: Augment) -> Augmentation:
    crop, jitter, flip = augment.random_resized_crop, augment.colour_jitter, augment.horizontal_flip
    return Augmentation(
        scale=(crop.scale[0], crop.scale[1]) if crop else None,
        ratio=(crop.ratio[0], crop.ratio[1]) if crop else Augmentation.ratio,
        centre=crop.centre if crop else Augmentation.centre,
        shift=augment.random_crop,
        flip=flip.probability if flip else 0.0,
        rotation=augment.rotation.degrees if augment.rotation else 0.0,
        jitter=(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue) if jitter else None,
        erase=augment.random_erasing.probability if augment.random_erasing else 0.0,
        mixup=augment.mixup.alpha if augment.mixup else 0.0,
        cutmix=augment.cutmix.alpha if augment.cutmix else 0.0,
        policy=augment.policy,
    )
