"""The loaders of one run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch.utils.data import DataLoader

from thaw.config.schema import Augment, Recipe
from thaw.data.augmentation import Augmentation
from thaw.data.batches import Batch, EpochBatches, Images, InOrder, loader
from thaw.data.preprocessing import Preprocessing
from thaw.data.samples import Samples
from thaw.data.store import store_of
from thaw.training.process import cores

MOST_WORKERS = 8


@dataclass(frozen=True)
class Feed:
    """`val` is None where the data set has no validation images. `train_images` cuts single training images."""

    train: DataLoader[Batch]
    val: DataLoader[Batch] | None
    test: DataLoader[Batch]
    images: Images


def feed_of(recipe: Recipe, samples: Samples, preprocessing: Preprocessing, cache: Path, on_gpu: bool) -> Feed:
    store = store_of(samples, preprocessing, cache)
    images = Images(store, samples.labels(), preprocessing.size, augmentation_of(recipe.augment), recipe.seed)
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
    crop, flip = augment.random_resized_crop, augment.horizontal_flip
    probability = flip.probability if flip else 0.0
    if crop is None:
        return Augmentation(flip=probability)
    return Augmentation((crop.scale[0], crop.scale[1]), (crop.ratio[0], crop.ratio[1]), probability)
