"""A trained network as a file for others: written aside, held against the network, and only then given its name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from thaw.config.errors import Problem, UserError, format_names
from thaw.data.factory import load_samples, missing_download
from thaw.data.image import BrokenImageError
from thaw.data.preprocessing import Preprocessing
from thaw.inference.export_formats import FORMATS, LogitsFunction, build_export_metadata, build_exportable_model
from thaw.inference.load import Classifier
from thaw.inference.predict import open_image, preprocess

BATCH_SIZES = (1, 7)  # both in every check: a batch whose number has become a constant fails
RELATIVE_TOLERANCE = 1e-3  # of the largest logit. Measured: 1e-6 to 1e-5, float32, CPU, between torch and onnxruntime


@dataclass(frozen=True)
class ExportCheck:
    """An export beside its network on `images`: how many have the same class, and the largest differences of logits and
    of probabilities. `largest_logit` is the network's."""

    num_images: int
    num_same: int
    max_logit_difference: float
    max_probability_difference: float
    max_logit: float

    @property
    def is_within_tolerance(self) -> bool:
        """Also says that classes differ only where two logits are as near as that."""
        return self.max_logit_difference <= RELATIVE_TOLERANCE * max(1.0, self.max_logit)


class ExportMismatchError(Exception):
    """An export that computes something else than its network; it was deleted."""

    def __init__(self, check: ExportCheck) -> None:
        super().__init__()
        self.check = check


def export_model(classifier: Classifier, format_name: str, file: Path, pixels: Tensor) -> ExportCheck:
    """Writes `trained` to `file` in the format `name`, having held it against the network on uint8 `pixels`
    [n, 3, size, size]. A file that was there stays as it was until the new one has passed.

    Raises:
        NotTheSame: where the two differ by more than rounding can explain.
        UserFault: where the format cannot hold the network.
    """
    export_format, temporary_file = FORMATS[format_name], file.with_name(f".{file.stem}-{os.getpid()}{file.suffix}")
    try:
        _write_export(classifier, format_name, temporary_file)
        check = _compare_logits(_build_reference(classifier), export_format.load(temporary_file), pixels)
        if not check.is_within_tolerance:
            raise ExportMismatchError(check)
        with temporary_file.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary_file.replace(file)
    finally:
        temporary_file.unlink(missing_ok=True)
    return check


def _write_export(classifier: Classifier, format_name: str, file: Path) -> None:
    try:
        FORMATS[format_name].write(
            classifier, build_export_metadata(classifier, has_normalisation=format_name != "safetensors"), file
        )
    except RuntimeError as error:  # of torch's exporters, which do not take every network
        alternatives = " or ".join(f"--format {alternative}" for alternative in FORMATS if alternative != format_name)
        got = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        problem = Problem(f"--format {format_name} of {classifier.recipe.backbone.name}", got, fix=alternatives)
        raise UserError("this network cannot be written in this format.", [problem]) from error


def _build_reference(classifier: Classifier) -> LogitsFunction:
    model = build_exportable_model(classifier)
    return torch.inference_mode()(lambda images: model(images)[0])


def _compare_logits(network: LogitsFunction, export: LogitsFunction, pixels: Tensor) -> ExportCheck:
    count = len(pixels)
    padded_pixels = pixels[torch.arange(max(count, sum(BATCH_SIZES))) % count]  # of few images some are seen again
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
    """One image, then seven at a time."""
    first_size, next_size = BATCH_SIZES
    yield pixels[:first_size]
    yield from torch.split(pixels[first_size:], next_size)


MAX_IMAGES = 100


@dataclass(frozen=True)
class CheckImages:
    """`pixels` is uint8 [n, 3, size, size]; `said` names them, and says aloud where they are not real."""

    pixels: Tensor
    description: str


def load_check_images(classifier: Classifier, paths: Sequence[Path], root: str | None) -> CheckImages:
    """`paths`, all of them; else at most 100 test images of the run's data set, evenly spread over its classes, which
    may lie below `root`; else noise.

    Raises:
        UserFault: where one of `paths`, or a test image, is no image, or `root` holds no data set.
    """
    if paths:
        return CheckImages(
            _load_pixels(paths, classifier.preprocessing),
            f"{len(paths)} real {'image' if len(paths) == 1 else 'images'}",
        )
    test_paths = _list_test_images(classifier, root)
    if not test_paths:
        return CheckImages(
            _generate_noise(classifier.preprocessing.size), f"{MAX_IMAGES} images of noise, NOT on real ones"
        )
    name = classifier.recipe.dataset.name
    kind = "drawn test images" if classifier.recipe.dataset.kind == "captcha" else "real test images"
    return CheckImages(_load_pixels(test_paths, classifier.preprocessing), f"{len(test_paths)} {kind} of {name}")


def _list_test_images(classifier: Classifier, root: str | None) -> list[Path]:
    """None where the data set would have to be fetched."""
    recipe = classifier.recipe
    if root is not None:
        recipe = recipe.model_copy(update={"dataset": recipe.dataset.model_copy(update={"root": root})})
    if missing_download(recipe):
        return []
    samples = load_samples(recipe)
    positions = samples.get_positions("test")
    sampled_indices = np.linspace(0, len(positions) - 1, min(MAX_IMAGES, len(positions))).round().astype(int)
    return [samples.root / samples.samples[position].path for position in positions[sampled_indices]]


def _load_pixels(paths: Sequence[Path], preprocessing: Preprocessing) -> Tensor:
    images, messages = [], []
    for path in paths:
        try:
            images.append(preprocess(open_image(path), preprocessing))
        except BrokenImageError as error:
            messages.append(f"{path}: {error}")
    if messages:
        raise UserError("images that cannot be decoded.", [Problem(format_names(messages, 5), valid="images")])
    return torch.stack(images)


def _generate_noise(size: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (MAX_IMAGES, 3, size, size), dtype=torch.uint8, generator=generator)
