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
from thaw.data.image import BrokenImage, decoded
from thaw.data.preprocessing import Preprocessing, resized
from thaw.data.store import trimmed
from thaw.data.views import centre_crop, views_of
from thaw.training.process import cores

BATCH = 32
Picture = str | Path | Image.Image


class Trained(Protocol):
    """What predicting takes of a restored network."""

    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def preprocessing(self) -> Preprocessing: ...
    @property
    def recipe(self) -> Recipe: ...
    def logits(self, images: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Prediction:
    """`top` are classes with their probabilities, best first; empty where the image is broken: `broken` says why."""

    path: str
    top: tuple[tuple[str, float], ...]
    broken: str = ""

    @property
    def label(self) -> str:
        return self.top[0][0] if self.top else ""

    @property
    def probability(self) -> float:
        return self.top[0][1] if self.top else 0.0


@dataclass(frozen=True)
class Answer:
    """Of picture `number`: uint8 `pixels` [rows, 3, size, size], or with views between, as the network saw them, and
    float32 `logits` [rows, classes]. None where the picture is `broken`, which says why."""

    number: int
    pixels: Tensor | None
    logits: Tensor | None
    broken: str = ""


Read = tuple[Tensor | None, str]


def predictions(trained: Trained, pictures: Sequence[Picture], top: int) -> Iterator[Prediction]:
    """One for each of `pictures`, in their order."""
    for answer in answers(trained, pictures):
        yield as_prediction(answer, trained.classes, pictures[answer.number], top)


def as_prediction(answer: Answer, classes: Sequence[str], picture: Picture, top: int) -> Prediction:
    name = "" if isinstance(picture, Image.Image) else str(picture)
    if answer.logits is None:
        return Prediction(name, (), answer.broken)
    best = answer.logits[0].softmax(0).topk(min(top, len(classes)))
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return Prediction(name, tuple((classes[index], probability) for index, probability in pairs))


def answers(
    trained: Trained,
    pictures: Iterable[Picture],
    batch: int = BATCH,
    pieces: Callable[[Image.Image], Sequence[Image.Image]] = lambda whole: [whole],
) -> Iterator[Answer]:
    """One for each of `pictures`, in their order; `batch` of those that can be decoded go through the network at once.
    `pieces` cuts a picture into those that are asked for, a row each. Views are those of the recipe's
    test_time_augmentation."""
    preprocessing, kind = trained.preprocessing, trained.recipe.trainer.test_time_augmentation

    def read(picture: Picture) -> Read:
        try:
            whole = opened(picture)
        except BrokenImage as error:
            return None, str(error)
        return torch.stack([seen(piece, preprocessing, kind) for piece in pieces(whole)]), ""

    waiting, whole = list[tuple[int, Read]](), 0
    for number, found in enumerate(_ahead(read, pictures, 2 * batch)):
        waiting.append((number, found))
        whole += found[0] is not None
        if whole == batch:
            yield from _answered(trained, waiting)
            waiting, whole = [], 0
    yield from _answered(trained, waiting)


def squares(pictures: Iterable[Picture], preprocessing: Preprocessing) -> np.ndarray:
    """uint8 [n, size, size, 3]: what a network sees of `pictures`, for people to look at.

    Raises:
        BrokenImage: where one cannot be decoded.
    """
    return np.stack([seen(opened(one), preprocessing).permute(1, 2, 0).numpy() for one in pictures])


def opened(picture: Picture) -> Image.Image:
    return picture.convert("RGB") if isinstance(picture, Image.Image) else decoded(Path(picture))


def _answered(trained: Trained, waiting: Sequence[tuple[int, Read]]) -> Iterator[Answer]:
    images = [pixels for _, (pixels, _) in waiting if pixels is not None]
    found = torch.split(trained.logits(torch.cat(images)), [len(one) for one in images]) if images else ()
    logits = iter(found)
    for number, (pixels, broken) in waiting:
        yield Answer(number, pixels, None if pixels is None else next(logits), broken)


def seen(image: Image.Image, preprocessing: Preprocessing, kind: str = "none") -> Tensor:
    """The same pixels as a run's store holds and its evaluation cuts: uint8 [3, size, size]; with views, as
    trainer.test_time_augmentation has them, [views, 3, size, size]."""
    pixels = torch.from_numpy(resized(trimmed(image), preprocessing).copy()).permute(2, 0, 1)
    size = preprocessing.size
    return centre_crop(pixels, size) if kind == "none" else views_of(pixels, size, kind)


def _ahead(read: Callable[[Picture], Read], pictures: Iterable[Picture], most: int) -> Iterator[Read]:
    """`read` of each, in order, in threads: Pillow decodes outside Python's lock. `most` wait at once, so that decoded
    images do not pile up in memory."""
    rest = iter(pictures)
    with ThreadPoolExecutor(cores()) as pool:
        begun: deque[Future[Read]] = deque(pool.submit(read, one) for one in islice(rest, most))
        while begun:
            done = begun.popleft().result()
            begun.extend(pool.submit(read, one) for one in islice(rest, 1))
            yield done
