"""A checkpoint, or an export to safetensors -> a network that can be used, without its run."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from thaw.config.faults import Fault, UserFault
from thaw.config.schema import Recipe
from thaw.config.validation import validated
from thaw.data.preprocessing import Preprocessing
from thaw.network.build import source_for, unstarted_network
from thaw.network.names import load_library_names
from thaw.network.network import Network
from thaw.network.normalise import Normalise
from thaw.training.checkpoint import FORMAT

EXPORTED = ".safetensors"


@dataclass(frozen=True)
class Restored:
    """A trained network in evaluation mode, with what belongs to it."""

    network: Network
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    recipe: Recipe

    @torch.inference_mode()
    def probabilities(self, images: Tensor) -> Tensor:
        """float32 [n, classes] for uint8 [n, 3, size, size]."""
        logits: Tensor = self.network(Normalise(self.preprocessing)(images))
        return logits.softmax(1)


def restored(checkpoint: Path) -> Restored:
    """The network of `checkpoint`, which may be a run directory: then of its best epoch.

    Raises:
        UserFault: for a file that is no checkpoint of thaw's, or holds more than tensors and plain data.
    """
    file = checkpoint_in(checkpoint)
    content = _content(file)
    about, recipe = content["thaw"], validated(content["thaw"]["recipe"])
    preprocessing = _preprocessing(about["preprocessing"])
    size = recipe.dataset.image_size
    source = source_for(recipe.backbone, True, recipe.seed, Path(), None, size)  # weights: those of the checkpoint
    network = unstarted_network(source, recipe.head, len(about["classes"]), preprocessing)
    if file.suffix == EXPORTED:
        load_library_names(network, source.model, recipe.head, content["state_dict"])
    else:
        network.load_state_dict({name.removeprefix("network."): one for name, one in content["state_dict"].items()})
    return Restored(network.eval(), tuple(about["classes"]), preprocessing, recipe)


def checkpoint_in(place: Path) -> Path:
    """`place`, or where it is a run directory the checkpoint of its best epoch."""
    return place / "checkpoints" / "best.ckpt" if place.is_dir() else place


def _content(file: Path) -> dict[str, Any]:
    try:
        is_exported = file.suffix == EXPORTED
        content = _exported(file) if is_exported else torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise _refused(file, "no such file", "a run directory, or its checkpoints/best.ckpt") from error
    except pickle.UnpicklingError as error:
        raise _refused(file, "it holds objects that would have to be executed", "tensors and plain data") from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise _refused(file, str(error).splitlines()[0], "a whole checkpoint") from error
    found = content.get("thaw", {}).get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise _refused(file, f"format {found}", f"a checkpoint of thaw's, format {FORMAT}")
    return dict(content)


def _exported(file: Path) -> dict[str, Any]:
    """As a checkpoint has it, of a file that `thaw export` wrote."""
    try:
        with safe_open(file, "pt") as opened:
            held = opened.metadata() or {}
            about = {key: json.loads(held[key]) for key in ("recipe", "classes", "preprocessing") if key in held}
            about["format"] = json.loads(held.get("thaw_format", "null"))
            return {"thaw": about, "state_dict": {name: opened.get_tensor(name) for name in opened.keys()}}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def _preprocessing(plain: dict[str, Any]) -> Preprocessing:
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in plain.items()}
    return Preprocessing(**values)


def _refused(file: Path, got: str, valid: str) -> UserFault:
    return UserFault("the checkpoint cannot be used.", [Fault(str(file), got, valid)])
