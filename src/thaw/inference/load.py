"""Load a trained network from a checkpoint or a run, ready to use."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from thaw.config.catalog import list_backbones
from thaw.config.errors import UserError, find_closest_name, format_names
from thaw.config.printable import escape_line
from thaw.config.renamed_keys import upgrade_recipe
from thaw.config.schema import Recipe, TrainerConfig
from thaw.config.validation import validate_recipe
from thaw.data.augmentation import average_over_views
from thaw.data.identity import DataIdentity
from thaw.data.preprocessing import Preprocessing
from thaw.features.precision import restore_precision
from thaw.inference.predict import ImageLike, Predictions, expand_folders, predict_images
from thaw.models.factory import load_seeded_pretrained, uninitialized_network
from thaw.models.network import Network, Normalize, PixelNetwork, count_parameters
from thaw.models.precision import DOUBLE_PRECISION, autocast
from thaw.models.state_dict import from_library_state_dict
from thaw.runs.checkpoint import (
    CheckpointMetadata,
    check_fit,
    check_recorded_digest,
    check_values,
    checkpoint_error,
    is_exported,
    read_checkpoint,
    resolve_checkpoint,
)
from thaw.runs.schema import PrecisionEntry
from thaw.system.devices import get_device, resolve_accelerator, resolve_memory_format
from thaw.system.tables import render_html_table

MAX_SHOWN_CLASSES = 4


class RunLike(Protocol):
    """A run, by its directory."""

    @property
    def directory(self) -> Path:
        """The directory of the run."""


CheckpointLike = str | Path | RunLike


@dataclass(frozen=True, repr=False)
class Classifier:
    """A trained network in evaluation mode, with its classes, preprocessing and recipe.

    `cached_depths` are numbers of leading stages whose features its run trained on. `identity` recognizes the images
    that it was trained on, `recorded_precision` is that of its run; both are None for a checkpoint of version 0.2 or
    older.
    """

    network: Network
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    recipe: Recipe
    cached_depths: tuple[int, ...] = ()
    identity: DataIdentity | None = None
    recorded_precision: PrecisionEntry | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    memory_format: torch.memory_format = torch.contiguous_format

    @torch.inference_mode()
    def compute_logits(self, images: Tensor, depth: int = 0) -> Tensor:
        """Compute logits, float32 [n, classes] on the CPU.

        `images` are uint8 [n, 3, size, size], or [n, views, 3, size, size]: then the logits are the logarithm of the
        mean of the views' probabilities. With a `depth`, `images` are the output of the first `depth` stages. On the
        device, at the precision and with the batches of the run, the logits are the run's to the last bit.
        """
        inputs = images.to(self.device)
        with autocast(self.device.type, self.network.precision.trained):
            if depth:
                logits = self.network.forward_from(inputs, depth)
            else:
                model = PixelNetwork(self.network, self.preprocessing, self.memory_format)
                logits = model(inputs) if inputs.ndim == 4 else average_over_views(model, inputs)
        return logits.float().cpu()

    def predict_proba(self, images: Tensor) -> Tensor:
        """Compute probabilities, float32 [n, classes] on the CPU, of images as `compute_logits` takes them."""
        return self.compute_logits(images).softmax(1)

    def predict(self, images: Sequence[ImageLike] | ImageLike, top: int = 3) -> Predictions:
        """Predict the `top` classes of each image, the most probable first.

            classifier.predict("ant.jpg")[0].label
            classifier.predict(["ant.jpg", pil_image, array]).to_frame()

        `images` are the path of an image or of a folder of images, a PIL image, a uint8 array [height, width, 3], or a
        sequence of them; an array [n, height, width, 3] is a sequence of images. An image that cannot be decoded has an
        `error` in its place.

        Raises:
            UserError: where an array is not an image, something is none of these, or a folder has no images.
        """
        is_array = isinstance(images, np.ndarray | Tensor)
        is_sequence = images.ndim == 4 if is_array else isinstance(images, Iterable)  # type: ignore[union-attr]
        is_single = isinstance(images, str | os.PathLike | Image.Image) or not is_sequence
        image_list: Any = [images] if is_single else images
        return Predictions(predict_images(self, list(expand_folders(image_list)), top))

    def build_normalize(self) -> Normalize:
        """Build the module that turns pixels [n, 3, size, size] from 0 to 255 into inputs of `network`."""
        return PixelNetwork(self.network, self.preprocessing, self.memory_format).normalize

    def __repr__(self) -> str:
        names = format_names(map(escape_line, self.classes), MAX_SHOWN_CLASSES)
        data = f"{len(self.classes)} classes of {self.recipe.dataset.name}: {names}"
        size = self.preprocessing.size
        return f"Classifier({self.recipe.backbone.name}, {data}; {size} x {size} pixels, on {self.device})"

    def _repr_html_(self) -> str:
        return render_html_table("Classifier", (), self._list_facts())

    def _list_facts(self) -> list[tuple[str, str]]:
        size = self.preprocessing.size
        return [
            ("backbone", f"{self.recipe.backbone.library} {self.recipe.backbone.name}"),
            ("data set", self.recipe.dataset.name),
            ("classes", f"{len(self.classes)} ({format_names(self.classes, MAX_SHOWN_CLASSES)})"),
            ("image size", f"{size} x {size}"),
            ("parameters", f"{count_parameters(list(self.network.parameters())):,}"),
            ("device", str(self.device)),
        ]

    def on_hardware(self, trainer: TrainerConfig | None = None) -> Classifier:
        """Return the classifier on the device and at the precision that `trainer` means on this machine.

        `trainer` is the recipe's own by default; then a network that was trained on a GPU runs on a CPU where there is
        no GPU. The precision that `auto` meant in the run on a CPU applies again.

        Raises:
            UserError: where `trainer` asks for a GPU and there is none.
        """
        settings = trainer or _adapt_trainer(self.recipe.trainer)
        accelerator = resolve_accelerator(settings)
        precision, device = restore_precision(self.recorded_precision, settings, accelerator), get_device(accelerator)
        memory_format = resolve_memory_format(self.recipe.backbone, accelerator)
        dtype = torch.float64 if precision.trained == DOUBLE_PRECISION else None
        network = self.network.to(device, dtype).to(memory_format=memory_format)
        network.precision = precision
        return replace(self, network=network, device=device, memory_format=memory_format)


def load(checkpoint: CheckpointLike) -> Classifier:
    """Load a trained network, on a GPU where there is one.

        load("outputs/RUN").predict("ant.jpg")

    `checkpoint` is a checkpoint, an export to safetensors, a run directory or a run; of a run the best epoch is loaded.

    Raises:
        UserError: as `load_checkpoint`.
    """
    return load_checkpoint(checkpoint).on_hardware()


def load_checkpoint(checkpoint: CheckpointLike) -> Classifier:
    """Load a trained network on the CPU, in float32. The pretrained weights are neither read nor needed.

    Raises:
        UserError: for a file that is not a checkpoint of thaw, holds more than tensors and plain data, or not the
            tensors of its recipe's network.
    """
    path = checkpoint if isinstance(checkpoint, str | Path) else checkpoint.directory
    file = resolve_checkpoint(Path(path).expanduser())
    metadata, state_dict = read_checkpoint(file)
    check_values(file, state_dict)
    recipe, preprocessing = _validate_recipe(file, metadata), _build_preprocessing(metadata)
    network, model = _build_network(recipe, preprocessing, len(metadata.classes))
    state_dict = from_library_state_dict(network, model, recipe.head, state_dict) if is_exported(file) else state_dict
    check_fit(file, state_dict, network.state_dict())
    check_recorded_digest(file)
    network.load_state_dict(state_dict)
    network.eval().requires_grad_(False)
    classes, cached_depths = tuple(metadata.classes), tuple(metadata.cached)
    return Classifier(network, classes, preprocessing, recipe, cached_depths, metadata.data, metadata.precision)


def _validate_recipe(file: Path, metadata: CheckpointMetadata) -> Recipe:
    try:
        recipe = validate_recipe(upgrade_recipe(metadata.recipe), rules=())
    except UserError as error:
        raise UserError(f"the recipe in {file} is not valid.", error.problems) from error
    library, name = recipe.backbone.library, recipe.backbone.name
    names = list_backbones(library)
    if name.split(".")[0] not in names:
        got = f"backbone {name}, which the installed {library} does not have"
        valid = f"{len(names)} classifiers, {find_closest_name(name, names) or ''}"
        raise checkpoint_error(file, got, valid, f"pip install -U {library}")
    return recipe


def _build_preprocessing(metadata: CheckpointMetadata) -> Preprocessing:
    plain_values = metadata.preprocessing.model_dump()
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in plain_values.items()
    }
    return Preprocessing(**values)


def _build_network(recipe: Recipe, preprocessing: Preprocessing, num_classes: int) -> tuple[Network, nn.Module]:
    """Build the network with random weights; return it and the library's network that it was split from."""
    rng_state = torch.get_rng_state()
    size = recipe.dataset.image_size
    pretrained = load_seeded_pretrained(recipe.backbone, True, recipe.seed, Path(), None, size)
    network = uninitialized_network(pretrained, recipe.head, num_classes, preprocessing)
    torch.set_rng_state(rng_state)  # loading a network does not change the caller's random numbers
    return network, pretrained.model


def _adapt_trainer(trainer: TrainerConfig) -> TrainerConfig:
    accelerator = "cpu" if trainer.accelerator == "cpu" else "auto"
    precision = "auto" if trainer.precision == "16-mixed" and not torch.cuda.is_available() else trainer.precision
    return trainer.model_copy(update={"accelerator": accelerator, "precision": precision})
