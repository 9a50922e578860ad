"""What can be known of a classifier before its weights are here: published figures, sizes, weights that lie here."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from thaw.config.consistency import names_a_file
from thaw.config.schema import Backbone, Package
from thaw.network.cost import cost_of

MOST_COUNTED = 40  # timm's networks take about 0.3 s each
HUB_FILES = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")


@dataclass(frozen=True)
class Known:
    """`top1` in per cent on ImageNet and `gmacs`, billions of multiply-adds an image, belong to the default weights and
    to square images of `size` pixels. None: not known. `at_hand` says where weights lie that need no network."""

    library: str
    name: str
    parameters: int | None = None
    top1: float | None = None
    gmacs: float | None = None
    size: int | None = None
    at_hand: str = ""


def of_torchvision(name: str, cache: Path) -> Known:
    """Figures as torchvision publishes them with its default weights."""
    from torchvision import models

    known = models.get_model_weights(name)
    if not len(known):
        return Known("torchvision", name)
    meta: dict[str, Any] = known.DEFAULT.meta
    size = known.DEFAULT.transforms().crop_size[0]
    top1 = meta["_metrics"].get("ImageNet-1K", {}).get("acc@1")
    here = ", ".join(_at_hand(known, cache))
    return Known("torchvision", name, meta["num_params"], top1, meta["_ops"], size, here)


def _at_hand(known: Iterable[Any], cache: Path) -> Iterator[str]:
    folders = {"cache": cache / "weights", "torch hub": Path(torch.hub.get_dir()) / "checkpoints"}
    for weights in known:
        for place, folder in folders.items():
            if (folder / Path(weights.url).name).is_file():
                yield f"{weights.name} ({place})"


def weights_to_fetch(backbone: Backbone, cache: Path) -> str:
    """Which weights of `backbone` would have to be fetched, and where they would lie; empty where they are here."""
    if names_a_file(backbone) or backbone.weights == "none" or (backbone.package and packaged(backbone.package)):
        return ""
    if backbone.package:
        return f"the package {backbone.package.distribution}"
    if backbone.library == "timm":
        here = of_timm(backbone.name, cache, count=False).at_hand
        return "" if here else f"timm's {backbone.name} in {cache / 'weights' / 'timm'}"
    from torchvision import models

    known = models.get_model_weights(backbone.name)
    weights = known.DEFAULT if backbone.weights == "default" else known[backbone.weights]
    file = cache / "weights" / Path(weights.url).name
    return "" if any(_at_hand([weights], cache)) else f"{weights.url} as {file}"


def of_timm(name: str, cache: Path, count: bool) -> Known:
    """timm's package carries no accuracies. `count` builds the network on torch's meta device to count parameters and
    multiply-adds; they stay unknown where it cannot be built there."""
    import timm

    config = timm.get_pretrained_cfg(name)
    size = config.input_size[-1] if config else None
    known = Known("timm", name, size=size, at_hand=_in_hub_cache(config.hf_hub_id if config else None, cache))
    return _counted(known) if count and size else known


def _counted(known: Known) -> Known:
    import timm

    try:
        with torch.device("meta"), warnings.catch_warnings(action="ignore"):
            parameters, multiply_adds = cost_of(timm.create_model(known.name, pretrained=False), known.size or 0)
    except Exception:  # whatever a constructor of some 1,400 does that needs values
        return known
    return replace(known, parameters=parameters, gmacs=multiply_adds / 1e9)


def _in_hub_cache(repository: str | None, cache: Path) -> str:
    """Where Hugging Face's own cache has the file, thaw does not look, but takes it as backbone.weights=FILE."""
    from huggingface_hub import constants, try_to_load_from_cache

    folders = {"cache": str(cache / "weights" / "timm"), "Hugging Face cache": constants.HF_HUB_CACHE}
    for place, folder in folders.items() if repository else ():
        if any(isinstance(try_to_load_from_cache(repository, file, cache_dir=folder), str) for file in HUB_FILES):
            return place
    return ""


def packaged(package: Package) -> str:
    """The installed distribution that holds the weights; empty where it is not installed."""
    module, inside = package.file.split("/", 1)
    spec = find_spec(module)
    is_there = spec is not None and spec.origin is not None and (Path(spec.origin).parent / inside).is_file()
    return f"package {package.distribution}" if is_there else ""
