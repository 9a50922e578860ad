"""A checkpoint -> a network that can be used, without its run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from thaw.config.catalog import backbone_names
from thaw.config.faults import UserFault, nearest
from thaw.config.schema import Recipe, Trainer
from thaw.config.validation import validated
from thaw.data.preprocessing import Preprocessing
from thaw.features.inference import DOUBLE, autocast
from thaw.network.build import source_for, unstarted_network
from thaw.network.names import under_own_names
from thaw.network.network import Network
from thaw.network.normalise import Normalise
from thaw.trained.checkpoint_file import About, check_fit, checkpoint_in, content_of, is_exported, refused
from thaw.trained.prediction import Picture, Prediction, predictions
from thaw.training.hardware import accelerator_for, device_of, memory_format_for, precision_for
from thaw.training.views import over_views


@dataclass(frozen=True)
class Restored:
    """A trained network in evaluation mode, with what belongs to it. `cached` are numbers of leading stages whose
    features its run trained on. `precision` is Lightning's name of it."""

    network: Network
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    recipe: Recipe
    cached: tuple[int, ...] = ()
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: str = "32-true"
    layout: torch.memory_format = torch.contiguous_format

    @torch.inference_mode()
    def logits(self, images: Tensor, depth: int = 0) -> Tensor:
        """float32 [n, classes] on the CPU, for uint8 [n, 3, size, size], or [n, views, 3, size, size]: then over the
        views. With a `depth`, `images` are what the leading `depth` stages have made of them. For batches like the
        run's, as trained, they are the run's to the last bit."""
        inputs = images.to(self.device)
        with autocast(self.network, self.precision):
            if depth:
                found = self.network.after(inputs, depth)
            else:
                found = self._forward(inputs) if inputs.ndim == 4 else over_views(self._forward, inputs)
        return found.float().cpu()

    def _forward(self, images: Tensor) -> Tensor:
        first = next(self.network.parameters())
        normalise = Normalise(self.preprocessing).to(self.device, first.dtype)
        logits: Tensor = self.network(normalise(images).contiguous(memory_format=self.layout))
        return logits

    def probabilities(self, images: Tensor) -> Tensor:
        """float32 [n, classes] on the CPU, of images as `logits` takes them."""
        return self.logits(images).softmax(1)

    def predict(self, images: Sequence[Picture] | Picture, top: int = 3) -> list[Prediction]:
        """The `top` classes of each image, best first; `images` are files or Pillow's images. One that cannot be
        decoded says why in `broken`."""
        wanted = [images] if isinstance(images, Picture) else list(images)
        return list(predictions(self, wanted, top))

    def as_trained(self, trainer: Trainer | None = None) -> Restored:
        """On the device, at the precision and in the layout that `trainer`, by default the recipe's own, means on this
        machine. One that was trained on a GPU runs on a CPU where there is no other.

        Raises:
            UserFault: where `trainer` asks for a GPU and there is none.
        """
        settings = trainer or _wherever(self.recipe.trainer)
        accelerator = accelerator_for(settings)
        precision, device = precision_for(settings, accelerator), device_of(accelerator)
        layout = memory_format_for(self.recipe.backbone, accelerator)
        network = self.network.to(device, torch.float64 if precision == DOUBLE else None).to(memory_format=layout)
        return replace(self, network=network, device=device, precision=precision, layout=layout)


def load(checkpoint: str | Path) -> Restored:
    """The network of a checkpoint or a run directory, on a GPU where there is one.

    Raises:
        UserFault: as `restored`.
    """
    return restored(Path(checkpoint).expanduser()).as_trained()


def restored(checkpoint: Path) -> Restored:
    """The network of `checkpoint`, which may be a run directory: then of its best epoch. On the CPU, in float32. Source
    weights are neither read nor needed.

    Raises:
        UserFault: for a file that is no checkpoint of thaw's, holds more than tensors and plain data, or not the
            tensors of its recipe's network.
    """
    file = checkpoint_in(checkpoint)
    about, state = content_of(file)
    recipe, preprocessing = _recipe(file, about), _preprocessing(about)
    network, model = _network(recipe, preprocessing, len(about.classes))
    state = under_own_names(network, model, recipe.head, state) if is_exported(file) else state
    check_fit(file, state, network.state_dict())
    network.load_state_dict(state)
    network.eval().requires_grad_(False)
    return Restored(network, tuple(about.classes), preprocessing, recipe, tuple(about.cached))


def _recipe(file: Path, about: About) -> Recipe:
    try:
        recipe = validated(about.recipe, rules=())
    except UserFault as fault:
        raise UserFault(f"the recipe in {file} is not valid.", fault.faults) from fault
    library, name = recipe.backbone.library, recipe.backbone.name
    names = backbone_names(library)
    if name.split(".")[0] not in names:
        got = f"backbone {name}, which the installed {library} does not have"
        raise refused(file, got, f"{len(names)} classifiers, {nearest(name, names) or ''}", f"pip install -U {library}")
    return recipe


def _preprocessing(about: About) -> Preprocessing:
    plain = about.preprocessing.model_dump()
    values: dict[str, Any] = {key: tuple(one) if isinstance(one, list) else one for key, one in plain.items()}
    return Preprocessing(**values)


def _network(recipe: Recipe, preprocessing: Preprocessing, classes: int) -> tuple[Network, nn.Module]:
    """Of any weights, and the library's network that it was cut from."""
    generator = torch.get_rng_state()
    source = source_for(recipe.backbone, True, recipe.seed, Path(), None, recipe.dataset.image_size)
    network = unstarted_network(source, recipe.head, classes, preprocessing)
    torch.set_rng_state(generator)  # what is only loaded draws nothing of its caller's chance
    return network, source.model


def _wherever(trainer: Trainer) -> Trainer:
    accelerator = "cpu" if trainer.accelerator == "cpu" else "auto"
    precision = "auto" if trainer.precision == "16-mixed" and not torch.cuda.is_available() else trainer.precision
    return trainer.model_copy(update={"accelerator": accelerator, "precision": precision})
