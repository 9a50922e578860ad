"""Files -> logits, in batches and in order; what cannot be decoded is named and the rest goes on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from thaw.config.schema import Recipe
from thaw.data.image import BrokenImageError, decode_image
from thaw.data.image_store import crop_elongated
from thaw.data.preprocessing import Preprocessing, resize_image
from thaw.data.test_time_augmentation import build_views, center_crop
from thaw.system.process import available_cpus

DEFAULT_BATCH_SIZE = 32
ImageLike = str | Path | Image.Image


class Predictor(Protocol):
    """What predicting takes of a restored network."""

    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def preprocessing(self) -> Preprocessing: ...
    @property
    def recipe(self) -> Recipe: ...
    def compute_logits(self, images: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Prediction:
    """`top` are classes with their probabilities, best first; empty where the image is broken: `broken` says why."""

    path: str
    top: tuple[tuple[str, float], ...]
    error: str = ""

    @property
    def label(self) -> str:
        return self.top[0][0] if self.top else ""

    @property
    def probability(self) -> float:
        return self.top[0][1] if self.top else 0.0


@dataclass(frozen=True)
class RawPrediction:
    """Of picture `number`: uint8 `pixels` [rows, 3, size, size], or with views between, as the network saw them, and
    float32 `logits` [rows, classes]. None where the picture is `broken`, which says why."""

    index: int
    pixels: Tensor | None
    logits: Tensor | None
    error: str = ""


PixelsOrError = tuple[Tensor | None, str]


def predict_images(classifier: Predictor, images: Sequence[ImageLike], top: int) -> Iterator[Prediction]:
    """One for each of `pictures`, in their order."""
    for raw_prediction in iter_predictions(classifier, images):
        yield build_prediction(raw_prediction, classifier.classes, images[raw_prediction.index], top)


def build_prediction(raw_prediction: RawPrediction, classes: Sequence[str], image: ImageLike, top: int) -> Prediction:
    name = "" if isinstance(image, Image.Image) else str(image)
    if raw_prediction.logits is None:
        return Prediction(name, (), raw_prediction.error)
    best = raw_prediction.logits[0].softmax(0).topk(min(top, len(classes)))
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return Prediction(name, tuple((classes[index], probability) for index, probability in pairs))


def iter_predictions(
    classifier: Predictor,
    images: Iterable[ImageLike],
    batch_size: int = DEFAULT_BATCH_SIZE,
    split_image: Callable[[Image.Image], Sequence[Image.Image]] = lambda whole: [whole],
) -> Iterator[RawPrediction]:
    """One for each of `pictures`, in their order; `batch` of those that can be decoded go through the network at once.
    `pieces` cuts a picture into those that are asked for, a row each. Views are those of the recipe's
    test_time_augmentation."""
    preprocessing, kind = classifier.preprocessing, classifier.recipe.trainer.test_time_augmentation

    def read(image_like: ImageLike) -> PixelsOrError:
        try:
            image = open_image(image_like)
        except BrokenImageError as error:
            return None, str(error)
        return torch.stack([preprocess(piece, preprocessing, kind) for piece in split_image(image)]), ""

    pending, num_decoded = list[tuple[int, PixelsOrError]](), 0
    for index, pixels_or_error in enumerate(_read_ahead(read, images, 2 * batch_size)):
        pending.append((index, pixels_or_error))
        num_decoded += pixels_or_error[0] is not None
        if num_decoded == batch_size:
            yield from _predict_pending(classifier, pending)
            pending, num_decoded = [], 0
    yield from _predict_pending(classifier, pending)


def load_pixels(images: Iterable[ImageLike], preprocessing: Preprocessing) -> np.ndarray:
    """uint8 [n, size, size, 3]: what a network sees of `pictures`, for people to look at.

    Raises:
        BrokenImage: where one cannot be decoded.
    """
    return np.stack([preprocess(open_image(image), preprocessing).permute(1, 2, 0).numpy() for image in images])


def open_image(image: ImageLike) -> Image.Image:
    return image.convert("RGB") if isinstance(image, Image.Image) else decode_image(Path(image))


def _predict_pending(classifier: Predictor, pending: Sequence[tuple[int, PixelsOrError]]) -> Iterator[RawPrediction]:
    decoded_images = [pixels for _, (pixels, _) in pending if pixels is not None]
    split_logits = (
        torch.split(classifier.compute_logits(torch.cat(decoded_images)), [len(image) for image in decoded_images])
        if decoded_images
        else ()
    )
    logits_iterator = iter(split_logits)
    for index, (pixels, error) in pending:
        yield RawPrediction(index, pixels, None if pixels is None else next(logits_iterator), error)


def preprocess(image: Image.Image, preprocessing: Preprocessing, kind: str = "none") -> Tensor:
    """The same pixels as a run's store holds and its evaluation cuts: uint8 [3, size, size]; with views, as
    trainer.test_time_augmentation has them, [views, 3, size, size]."""
    pixels = torch.from_numpy(resize_image(crop_elongated(image), preprocessing).copy()).permute(2, 0, 1)
    size = preprocessing.size
    return center_crop(pixels, size) if kind == "none" else build_views(pixels, size, kind)


def _read_ahead(
    read: Callable[[ImageLike], PixelsOrError], images: Iterable[ImageLike], max_pending: int
) -> Iterator[PixelsOrError]:
    """`read` of each, in order, in threads: Pillow decodes outside Python's lock. `most` wait at once, so that decoded
    images do not pile up in memory."""
    remaining = iter(images)
    with ThreadPoolExecutor(available_cpus()) as pool:
        futures: deque[Future[PixelsOrError]] = deque(
            pool.submit(read, image) for image in islice(remaining, max_pending)
        )
        while futures:
            result = futures.popleft().result()
            futures.extend(pool.submit(read, image) for image in islice(remaining, 1))
            yield result
