"""Export a trained network to a file: write it under a temporary name, compare it with the network, then rename it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from thaw.config.errors import Problem, UserError, format_names
from thaw.data.factory import missing_download
from thaw.data.image import BrokenImageError
from thaw.data.preprocessing import Preprocessing
from thaw.inference.evaluation_data import load_recorded_samples
from thaw.inference.export_formats import FORMATS, LogitsFunction, build_export_metadata, build_exportable_model
from thaw.inference.load import Classifier
from thaw.inference.predict import open_image, preprocess
from thaw.system.files import replace_durably

BATCH_SIZES = (1, 7)  # both in every check: an export with a constant batch size fails
RELATIVE_TOLERANCE = 1e-3  # of the largest logit. Measured: 1e-6 to 1e-5, float32, CPU, between torch and onnxruntime
MAX_IMAGES = 100


@dataclass(frozen=True)
class ExportCheck:
    """An export compared with its network on `num_images` images.

    `num_same` have the same class. The differences are the largest of logits and of probabilities; `max_logit` is the
    network's largest.
    """

    num_images: int
    num_same: int
    max_logit_difference: float
    max_probability_difference: float
    max_logit: float

    @property
    def is_within_tolerance(self) -> bool:
        """Whether the difference can be rounding; then classes differ only where two logits are as close as that."""
        return self.max_logit_difference <= RELATIVE_TOLERANCE * max(1.0, self.max_logit)


class ExportMismatchError(Exception):
    """An export computes something else than its network; it was deleted."""

    def __init__(self, check: ExportCheck) -> None:
        super().__init__()
        self.check = check


def export_model(classifier: Classifier, format_name: str, file: Path, pixels: Tensor) -> ExportCheck:
    """Write a network to `file` and compare the export with the network on uint8 `pixels` [n, 3, size, size].

    An existing file is replaced only after the new one has passed the check.

    Raises:
        ExportMismatchError: where the two differ by more than rounding can explain.
        UserError: where the format cannot hold the network.
    """
    export_format, temporary_file = FORMATS[format_name], file.with_name(f".{file.stem}-{os.getpid()}{file.suffix}")
    try:
        _write_export(classifier, format_name, temporary_file)
        check = _compare_logits(_build_reference(classifier), export_format.load(temporary_file), pixels)
        if not check.is_within_tolerance:
            raise ExportMismatchError(check)
        replace_durably(temporary_file, file)
    finally:
        temporary_file.unlink(missing_ok=True)
    return check


def _write_export(classifier: Classifier, format_name: str, file: Path) -> None:
    metadata = build_export_metadata(classifier, includes_normalization=format_name != "safetensors")
    try:
        FORMATS[format_name].write(classifier, metadata, file)
    except RuntimeError as error:  # torch's exporters do not take every network
        alternatives = " or ".join(f"--format {alternative}" for alternative in FORMATS if alternative != format_name)
        got = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        problem = Problem(f"--format {format_name} of {classifier.recipe.backbone.name}", got, fix=alternatives)
        raise UserError("this network cannot be written in this format.", [problem]) from error


def _build_reference(classifier: Classifier) -> LogitsFunction:
    model = build_exportable_model(classifier)
    return torch.inference_mode()(lambda images: model(images)[0])


def _compare_logits(network: LogitsFunction, export: LogitsFunction, pixels: Tensor) -> ExportCheck:
    count = len(pixels)
    padded_pixels = pixels[torch.arange(max(count, sum(BATCH_SIZES))) % count]  # few images are repeated
    batches = list(_split_batches(padded_pixels))
    network_logits, export_logits = (torch.cat([run(batch) for batch in batches])[:count] for run in (network, export))
    logit_differences = (network_logits - export_logits).abs().nan_to_num(torch.inf)
    probability_differences = (network_logits.softmax(1) - export_logits.softmax(1)).abs().nan_to_num(1.0)
    num_same = int((network_logits.argmax(1) == export_logits.argmax(1)).sum())
    return ExportCheck(
        count,
        num_same,
        float(logit_differences.max()),
        float(probability_differences.max()),
        float(network_logits.abs().max()),
    )


def _split_batches(pixels: Tensor) -> Iterator[Tensor]:
    """Return a batch of one image, then batches of seven."""
    first_size, next_size = BATCH_SIZES
    yield pixels[:first_size]
    yield from torch.split(pixels[first_size:], next_size)


@dataclass(frozen=True)
class CheckImages:
    """Images to compare an export on: uint8 `pixels` [n, 3, size, size]; `description` says if they are not real."""

    pixels: Tensor
    description: str


def load_check_images(classifier: Classifier, paths: Sequence[Path], root: str | None) -> CheckImages:
    """Load images to compare an export on.

    They are all of `paths`; else at most 100 test images of the run's data set, in `root` if given, spread evenly over
    its classes; else noise.

    Raises:
        UserError: where one of `paths` or a test image cannot be decoded, or `root` holds no data set.
    """
    if paths:
        description = f"{len(paths)} real {'image' if len(paths) == 1 else 'images'}"
        return CheckImages(_load_pixels(paths, classifier.preprocessing), description)
    test_paths = _list_test_images(classifier, root)
    if not test_paths:
        noise = _generate_noise(classifier.preprocessing.size)
        return CheckImages(noise, f"{MAX_IMAGES} images of noise, NOT on real ones")
    name = classifier.recipe.dataset.name
    kind = "generated test images" if classifier.recipe.dataset.kind == "captcha" else "real test images"
    return CheckImages(_load_pixels(test_paths, classifier.preprocessing), f"{len(test_paths)} {kind} of {name}")


def _list_test_images(classifier: Classifier, root: str | None) -> list[Path]:
    """Return paths of test images; none where the data set would have to be downloaded."""
    recipe = classifier.recipe
    if root is not None:
        recipe = recipe.model_copy(update={"dataset": recipe.dataset.model_copy(update={"root": root})})
    if missing_download(recipe):
        return []
    samples = load_recorded_samples(recipe)
    positions = samples.get_positions("test")
    sampled_indices = np.linspace(0, len(positions) - 1, min(MAX_IMAGES, len(positions))).round().astype(int)
    return [samples.root / samples.samples[position].path for position in positions[sampled_indices]]


def _load_pixels(paths: Sequence[Path], preprocessing: Preprocessing) -> Tensor:
    images, messages = [], []
    for path in paths:
        try:
            images.append(preprocess(open_image(path, preprocessing.min_decoded_side), preprocessing))
        except BrokenImageError as error:
            messages.append(f"{path}: {error}")
    if messages:
        raise UserError("images that cannot be decoded.", [Problem(format_names(messages, 5), valid="images")])
    return torch.stack(images)


def _generate_noise(size: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (MAX_IMAGES, 3, size, size), dtype=torch.uint8, generator=generator)
