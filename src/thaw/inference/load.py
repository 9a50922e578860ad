"""A checkpoint -> a network that can be used, without its run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from thaw.config.catalog import list_backbones
from thaw.config.errors import UserError, find_closest_name
from thaw.config.renamed_keys import upgrade_recipe
from thaw.config.schema import Recipe, TrainerConfig
from thaw.config.validation import validate_recipe
from thaw.data.preprocessing import Preprocessing
from thaw.data.test_time_augmentation import average_over_views
from thaw.features.forward import DOUBLE_PRECISION, autocast
from thaw.inference.predict import ImageLike, Prediction, predict_images
from thaw.models.factory import load_seeded_pretrained, uninitialized_network
from thaw.models.network import Network, Normalize
from thaw.models.state_dict import from_library_state_dict
from thaw.runs.checkpoint import (
    CheckpointMetadata,
    check_fit,
    checkpoint_error,
    is_exported,
    read_checkpoint,
    resolve_checkpoint,
)
from thaw.system.devices import get_device, resolve_accelerator, resolve_memory_format, resolve_precision


@dataclass(frozen=True)
class Classifier:
    """A trained network in evaluation mode, with what belongs to it. `cached` are numbers of leading stages whose
    features its run trained on. `precision` is Lightning's name of it."""

    network: Network
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    recipe: Recipe
    cached_depths: tuple[int, ...] = ()
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: str = "32-true"
    memory_format: torch.memory_format = torch.contiguous_format

    @torch.inference_mode()
    def compute_logits(self, images: Tensor, depth: int = 0) -> Tensor:
        """float32 [n, classes] on the CPU, for uint8 [n, 3, size, size], or [n, views, 3, size, size]: then over the
        views. With a `depth`, `images` are what the leading `depth` stages have made of them. For batches like the
        run's, as trained, they are the run's to the last bit."""
        inputs = images.to(self.device)
        with autocast(self.network, self.precision):
            if depth:
                logits = self.network.forward_from(inputs, depth)
            else:
                logits = self._forward(inputs) if inputs.ndim == 4 else average_over_views(self._forward, inputs)
        return logits.float().cpu()

    def _forward(self, images: Tensor) -> Tensor:
        first_parameter = next(self.network.parameters())
        normalise = Normalize(self.preprocessing).to(self.device, first_parameter.dtype)
        logits: Tensor = self.network(normalise(images).contiguous(memory_format=self.memory_format))
        return logits

    def predict_proba(self, images: Tensor) -> Tensor:
        """float32 [n, classes] on the CPU, of images as `logits` takes them."""
        return self.compute_logits(images).softmax(1)

    def predict(self, images: Sequence[ImageLike] | ImageLike, top: int = 3) -> list[Prediction]:
        """The `top` classes of each image, best first; `images` are files or Pillow's images. One that cannot be
        decoded says why in `broken`."""
        image_list = [images] if isinstance(images, ImageLike) else list(images)
        return list(predict_images(self, image_list, top))

    def on_hardware(self, trainer: TrainerConfig | None = None) -> Classifier:
        """On the device, at the precision and in the layout that `trainer`, by default the recipe's own, means on this
        machine. One that was trained on a GPU runs on a CPU where there is no other.

        Raises:
            UserFault: where `trainer` asks for a GPU and there is none.
        """
        settings = trainer or _adapt_trainer(self.recipe.trainer)
        accelerator = resolve_accelerator(settings)
        precision, device = resolve_precision(settings, accelerator), get_device(accelerator)
        memory_format = resolve_memory_format(self.recipe.backbone, accelerator)
        network = self.network.to(device, torch.float64 if precision == DOUBLE_PRECISION else None).to(
            memory_format=memory_format
        )
        return replace(self, network=network, device=device, precision=precision, memory_format=memory_format)


def load(checkpoint: str | Path) -> Classifier:
    """The network of a checkpoint or a run directory, on a GPU where there is one.

    Raises:
        UserFault: as `restored`.
    """
    return load_checkpoint(Path(checkpoint).expanduser()).on_hardware()


def load_checkpoint(checkpoint: Path) -> Classifier:
    """The network of `checkpoint`, which may be a run directory: then of its best epoch. On the CPU, in float32. Source
    weights are neither read nor needed.

    Raises:
        UserFault: for a file that is no checkpoint of thaw's, holds more than tensors and plain data, or not the
            tensors of its recipe's network.
    """
    file = resolve_checkpoint(checkpoint)
    metadata, state_dict = read_checkpoint(file)
    recipe, preprocessing = _validate_recipe(file, metadata), _build_preprocessing(metadata)
    network, model = _build_network(recipe, preprocessing, len(metadata.classes))
    state_dict = from_library_state_dict(network, model, recipe.head, state_dict) if is_exported(file) else state_dict
    check_fit(file, state_dict, network.state_dict())
    network.load_state_dict(state_dict)
    network.eval().requires_grad_(False)
    return Classifier(network, tuple(metadata.classes), preprocessing, recipe, tuple(metadata.cached))


def _validate_recipe(file: Path, metadata: CheckpointMetadata) -> Recipe:
    try:
        recipe = validate_recipe(upgrade_recipe(metadata.recipe), rules=())
    except UserError as error:
        raise UserError(f"the recipe in {file} is not valid.", error.problems) from error
    library, name = recipe.backbone.library, recipe.backbone.name
    names = list_backbones(library)
    if name.split(".")[0] not in names:
        got = f"backbone {name}, which the installed {library} does not have"
        raise checkpoint_error(
            file, got, f"{len(names)} classifiers, {find_closest_name(name, names) or ''}", f"pip install -U {library}"
        )
    return recipe


def _build_preprocessing(metadata: CheckpointMetadata) -> Preprocessing:
    plain_values = metadata.preprocessing.model_dump()
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in plain_values.items()
    }
    return Preprocessing(**values)


def _build_network(recipe: Recipe, preprocessing: Preprocessing, num_classes: int) -> tuple[Network, nn.Module]:
    """Of any weights, and the library's network that it was cut from."""
    rng_state = torch.get_rng_state()
    pretrained_model = load_seeded_pretrained(
        recipe.backbone, True, recipe.seed, Path(), None, recipe.dataset.image_size
    )
    network = uninitialized_network(pretrained_model, recipe.head, num_classes, preprocessing)
    torch.set_rng_state(rng_state)  # what is only loaded draws nothing of its caller's chance
    return network, pretrained_model.model


def _adapt_trainer(trainer: TrainerConfig) -> TrainerConfig:
    accelerator = "cpu" if trainer.accelerator == "cpu" else "auto"
    precision = "auto" if trainer.precision == "16-mixed" and not torch.cuda.is_available() else trainer.precision
    return trainer.model_copy(update={"accelerator": accelerator, "precision": precision})
