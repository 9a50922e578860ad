"""Predict the classes of images, in batches and in order. An image that cannot be decoded has an error in its place."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from thaw.config.errors import Problem, UserError
from thaw.config.schema import Recipe
from thaw.data.augmentation import build_views, center_crop
from thaw.data.folder_scan import scan_folder
from thaw.data.image import (
    IMAGE_SUFFIXES,
    BrokenImageError,
    DecodedImage,
    convert_opened_image,
    decode_image,
    wrap_image,
)
from thaw.data.preprocessing import Preprocessing
from thaw.data.resizing import resize_image
from thaw.system.read_ahead import read_ahead
from thaw.system.tables import build_data_frame, render_html_table, render_text_table

DEFAULT_BATCH_SIZE = 32
MAX_SHOWN_ROWS = 20
VALID_ARRAY = "an array uint8 [height, width, 3], RGB from 0 to 255"
ImageLike = str | os.PathLike[str] | Image.Image | np.ndarray
PixelsOrError = tuple[Tensor | None, str]


class Predictor(Protocol):
    """The parts of a classifier that prediction needs."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""

    @property
    def preprocessing(self) -> Preprocessing:
        """How images become pixels."""

    @property
    def recipe(self) -> Recipe:
        """The recipe that the network was trained with."""

    def compute_logits(self, images: Tensor) -> Tensor:
        """Compute logits [n, classes] from uint8 images."""


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of an image.

    `top` are classes with their probabilities, the most probable first; empty where the image cannot be decoded, for
    the reason in `error`. `path` is empty for images that were not files.
    """

    path: str
    top: tuple[tuple[str, float], ...]
    error: str = ""

    @property
    def label(self) -> str:
        """The most probable class; empty where the image cannot be decoded."""
        return self.top[0][0] if self.top else ""

    @property
    def probability(self) -> float:
        """The probability of `label`; 0 where the image cannot be decoded."""
        return self.top[0][1] if self.top else 0.0

    def __repr__(self) -> str:
        classes = ", ".join(f"{name} {probability:.3f}" for name, probability in self.top)
        return f"Prediction({self.path or 'image'!r}: {classes or self.error})"


class Predictions(list[Prediction]):
    """A list of predictions, shown as a table."""

    def to_frame(self) -> Any:
        """Return a row per image as a pandas data frame, or as a list of dicts where pandas is not installed.

        The columns are path, label, probability, label_2, probability_2 and so on, and error.
        """
        num_top = max((len(prediction.top) for prediction in self), default=0)
        return build_data_frame([_build_frame_row(prediction, num_top) for prediction in self])

    def __repr__(self) -> str:
        if not self:
            return "Predictions([])"
        return "\n".join([render_text_table(*self._build_table(), left_columns=(0, 1)), *self._describe_rest()])

    def _repr_html_(self) -> str:
        title = f"{len(self)} prediction{'' if len(self) == 1 else 's'}"
        return render_html_table("; ".join([title, *self._describe_rest()]), *self._build_table())

    def _build_table(self) -> tuple[list[str], list[list[str]]]:
        rows = [
            [
                prediction.path or f"image {index}",
                prediction.label or prediction.error,
                f"{prediction.probability:.3f}" if prediction.top else "",
            ]
            for index, prediction in enumerate(self[:MAX_SHOWN_ROWS])
        ]
        return ["image", "label", "probability"], rows

    def _describe_rest(self) -> list[str]:
        return [f"... and {len(self) - MAX_SHOWN_ROWS} more"] if len(self) > MAX_SHOWN_ROWS else []


def _build_frame_row(prediction: Prediction, num_top: int) -> dict[str, Any]:
    row: dict[str, Any] = {"path": prediction.path}
    padding = [(None, None)] * (num_top - len(prediction.top))
    for rank, (name, probability) in enumerate([*prediction.top, *padding], start=1):
        suffix = f"_{rank}" if rank > 1 else ""
        row |= {f"label{suffix}": name, f"probability{suffix}": probability}
    return {**row, "error": prediction.error}


@dataclass(frozen=True)
class RawPrediction:
    """The logits of the image at `index`.

    `pixels` is uint8 [rows, 3, size, size], or [rows, views, 3, size, size], as the network saw them, and `logits`
    float32 [rows, classes]. Both are None where the image cannot be decoded, for the reason in `error`.
    """

    index: int
    pixels: Tensor | None
    logits: Tensor | None
    error: str = ""


def predict_images(classifier: Predictor, images: Sequence[ImageLike], top: int) -> Iterator[Prediction]:
    """Predict the `top` classes of each of `images`, in their order."""
    for raw_prediction in iter_predictions(classifier, images):
        yield build_prediction(raw_prediction, classifier.classes, images[raw_prediction.index], top)


def build_prediction(raw_prediction: RawPrediction, classes: Sequence[str], image: ImageLike, top: int) -> Prediction:
    """Build the prediction of `image` from its logits."""
    path = str(image) if isinstance(image, str | os.PathLike) else ""
    if raw_prediction.logits is None:
        return Prediction(path, (), raw_prediction.error)
    best = raw_prediction.logits[0].softmax(0).topk(min(top, len(classes)))
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return Prediction(path, tuple((classes[index], probability) for index, probability in pairs))


def iter_predictions(
    classifier: Predictor,
    images: Iterable[ImageLike],
    batch_size: int = DEFAULT_BATCH_SIZE,
    split_image: Callable[[Image.Image], Sequence[Image.Image]] | None = None,
) -> Iterator[RawPrediction]:
    """Compute the logits of each of `images`, in their order, in batches of `batch_size` decoded images.

    `split_image` returns the pieces of an upright image that get a row of logits each. Views are those of the recipe's
    test_time_augmentation.
    """
    preprocessing, kind = classifier.preprocessing, classifier.recipe.trainer.test_time_augmentation

    def read_pixels(image_like: ImageLike) -> PixelsOrError:
        try:
            pieces = _open_pieces(image_like, preprocessing, split_image)
        except BrokenImageError as error:
            return None, str(error)
        return torch.stack([preprocess(piece, preprocessing, kind) for piece in pieces]), ""

    pending, num_decoded = list[tuple[int, PixelsOrError]](), 0
    for index, pixels_or_error in enumerate(read_ahead(read_pixels, images, 2 * batch_size)):
        pending.append((index, pixels_or_error))
        num_decoded += pixels_or_error[0] is not None
        if num_decoded == batch_size:
            yield from _predict_pending(classifier, pending)
            pending, num_decoded = [], 0
    yield from _predict_pending(classifier, pending)


def _open_pieces(
    image: ImageLike,
    preprocessing: Preprocessing,
    split_image: Callable[[Image.Image], Sequence[Image.Image]] | None,
) -> list[DecodedImage]:
    if split_image is None:
        return [open_image(image, preprocessing.min_decoded_side)]
    return [wrap_image(piece) for piece in split_image(open_image(image).turn_upright())]


def load_pixels(images: Iterable[ImageLike], preprocessing: Preprocessing) -> np.ndarray:
    """Load images as a network sees them, to display them: uint8 [n, size, size, 3].

    Raises:
        BrokenImageError: where one cannot be decoded.
    """
    min_side = preprocessing.min_decoded_side
    pixels = [preprocess(open_image(image, min_side), preprocessing) for image in images]
    return np.stack([image_pixels.permute(1, 2, 0).numpy() for image_pixels in pixels])


def expand_folders(images: Iterable[ImageLike]) -> Iterator[ImageLike]:
    """Yield `images` with the images below a folder, sorted by path, in its place.

    Raises:
        UserError: where a folder has none.
    """
    for image in images:
        folder = Path(image).expanduser() if isinstance(image, str | os.PathLike) else None
        if folder is None or not folder.is_dir():
            yield image
            continue
        paths = sorted(folder / path for path in scan_folder(folder).top.iter_images())
        if not paths:
            problem = Problem(str(folder), "a folder without images", f"images {', '.join(IMAGE_SUFFIXES)}")
            raise UserError("nothing to predict.", [problem])
        yield from paths


def open_image(image: ImageLike, min_side: int | None = None) -> DecodedImage:
    """Open a file, a PIL image or an array: the same picture gives the same pixels in each form. Only a file can be
    decoded at a fraction of its size, with `min_side` as by `decode_image`.

    Raises:
        BrokenImageError: where a file or a PIL image cannot be decoded.
        UserError: where an array is not uint8 [height, width], or [height, width, channels] of 1, 3 or 4 channels, or
            where it is something else.
    """
    if isinstance(image, np.ndarray):
        return convert_opened_image(_convert_array(image))
    if isinstance(image, Image.Image):
        return convert_opened_image(image)
    if isinstance(image, str | os.PathLike):
        return decode_image(Path(image).expanduser(), min_side)
    shape = f" {list(image.shape)}" if isinstance(image, Tensor) else ""
    fix = "tensor.permute(1, 2, 0).numpy(), or compute_logits(tensor)" if shape else ""
    problem = Problem("the image", f"{type(image).__name__}{shape}", f"a path, a PIL image, or {VALID_ARRAY}", fix)
    raise UserError("this is not an image.", [problem])


def _convert_array(pixels: np.ndarray) -> Image.Image:
    is_image = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (1, 3, 4))
    if pixels.dtype != np.uint8 or not is_image or not pixels.size:
        got = f"{pixels.dtype} {list(pixels.shape)}"
        raise UserError("the array is not an image.", [Problem("the array", got, VALID_ARRAY, _suggest_array(pixels))])
    return Image.fromarray(pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)


def _suggest_array(pixels: np.ndarray) -> str:
    """Return the expression that turns the array into an image, where it is clear; empty otherwise."""
    expression = "array"
    if not pixels.size or pixels.ndim not in (2, 3) or pixels.dtype.kind not in "fu":
        return ""
    if pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4):
        if pixels.shape[0] not in (1, 3, 4):
            return ""
        expression = "array.transpose(1, 2, 0)"
    if pixels.dtype == np.uint16:
        return f"({expression} // 257).astype('uint8')"
    if pixels.dtype.kind == "f":
        is_fraction = pixels.min() >= 0 and pixels.max() <= 1
        return f"({expression}{' * 255' if is_fraction else ''}).round().astype('uint8')"
    return expression if pixels.dtype == np.uint8 else f"{expression}.astype('uint8')"


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


def preprocess(image: DecodedImage, preprocessing: Preprocessing, kind: str = "none") -> Tensor:
    """Resize and crop an image as a run does in evaluation: uint8 [3, size, size].

    `kind` is a trainer.test_time_augmentation; with views the result is [views, 3, size, size].
    """
    pixels = torch.from_numpy(resize_image(image, preprocessing).copy()).permute(2, 0, 1)
    size = preprocessing.size
    return center_crop(pixels, size) if kind == "none" else build_views(pixels, size, kind)
