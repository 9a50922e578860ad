"""A network's stages as they run fastest where nothing is to be learned from them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch
from torch import Tensor

from thaw.data.cache import key_of
from thaw.network.network import Network, vectors

AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}  # by Lightning's name of the precision
DOUBLE = "64-true"
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
TRIAL_IMAGES, TRIALS = 4, 2


def dtype_of(precision: str) -> torch.dtype:
    """What stages give at Lightning's `precision`."""
    return AUTOCAST.get(precision, torch.float64 if precision == DOUBLE else torch.float32)


@contextmanager
def at_rest(network: Network, layout: torch.memory_format, precision: str) -> Iterator[None]:
    """Within, `network` is in evaluation mode, its weights lie in `layout`, under inference mode and the autocast of
    `precision`; behind it, all is as it was."""
    modes, before = {module: module.training for module in network.modules()}, layout_of(network)
    network.eval().to(memory_format=layout)  # outside inference mode, whose tensors cannot be trained
    try:
        with torch.inference_mode(), autocast(network, precision):
            yield
    finally:
        network.to(memory_format=before)
        for module, mode in modes.items():
            module.training = mode


def layout_of(network: Network) -> torch.memory_format:
    contiguous = all(one.is_contiguous() for one in network.parameters())
    return torch.contiguous_format if contiguous else torch.channels_last


def autocast(network: Network, precision: str) -> AbstractContextManager[object]:
    if precision not in AUTOCAST:
        return nullcontext()
    return torch.autocast(next(network.parameters()).device.type, dtype=AUTOCAST[precision])


def outputs(network: Network, images: Tensor, depths: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
    """The output of the leading `depths` stages (ascending) for normalised `images`, each from the one before; of all
    stages pooled to vectors, as the head takes it."""
    start = 0
    for depth in depths:
        images = network.through(images, start, depth)
        start = depth
        yield depth, vectors(images) if depth == len(network.stages) else images


def fastest_layout(
    network: Network, size: int, architecture: str, remembered: Path, device: torch.device
) -> torch.memory_format:
    """Of contiguous and channels last. A GPU's tensor cores want the latter. On a CPU it is up to the network: faster
    for EfficientNet-Lite0 (18 ms an image instead of 48, batches of 8), slower for others. So it is measured there,
    once, and remembered in the folder `remembered`: another layout rounds differently, and a run is to repeat to the
    last bit."""
    if device.type != "cpu":
        return torch.channels_last if device.type == "cuda" else torch.contiguous_format
    file = remembered / f"{key_of(architecture=architecture, size=size, torch=torch.__version__)}.json"
    if not file.is_file():
        seconds = {name: _seconds(network, size, layout) for name, layout in LAYOUTS.items()}
        remembered.mkdir(parents=True, exist_ok=True)
        aside = file.with_suffix(f".partial-{os.getpid()}")
        aside.write_text(json.dumps({"architecture": architecture, "size": size, "seconds": seconds}))
        aside.replace(file)
    measured: dict[str, float] = json.loads(file.read_text())["seconds"]
    return LAYOUTS[min(measured, key=lambda name: measured[name])]


def _seconds(network: Network, size: int, layout: torch.memory_format) -> float:
    """Of the fastest trial; the first, which prepares, does not count."""
    kind = next(network.parameters()).dtype
    images = torch.zeros(TRIAL_IMAGES, 3, size, size, dtype=kind).contiguous(memory_format=layout)
    times = []
    with at_rest(network, layout, ""):
        for _ in range(1 + TRIALS):
            began = time.perf_counter()
            network.through(images, 0, len(network.stages))
            times.append(time.perf_counter() - began)
    return min(times[1:])
