"""Run the stages of a network for inference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from thaw.models.network import Network, pool
from thaw.models.precision import autocast

MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


@contextmanager
def evaluation_mode(network: Network, memory_format: torch.memory_format) -> Iterator[None]:
    """Put `network` into evaluation mode and `memory_format`, under inference mode and the autocast of its precision.
    Afterwards restore its modes and memory format."""
    training_modes = {module: module.training for module in network.modules()}
    previous_format = memory_format_of(network)
    network.eval().to(memory_format=memory_format)  # not in inference mode, whose tensors cannot be trained
    try:
        device = next(network.parameters()).device
        with torch.inference_mode(), autocast(device.type, network.precision.trained):
            yield
    finally:
        network.to(memory_format=previous_format)
        for module, mode in training_modes.items():
            module.training = mode


def memory_format_of(network: Network) -> torch.memory_format:
    """Return the memory format of the weights."""
    is_contiguous = all(parameter.is_contiguous() for parameter in network.parameters())
    return torch.contiguous_format if is_contiguous else torch.channels_last


def iter_stage_outputs(network: Network, images: Tensor, depths: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
    """Yield each of `depths`, ascending, with the output of the leading stages for normalized `images`.

    `images` is [n, 3, size, size]. Each output is computed from the previous one. The output of all stages is pooled to
    vectors, which the head takes.
    """
    start = 0
    for depth in depths:
        images = network.forward_stages(images, start, depth)
        start = depth
        yield depth, pool(images) if depth == len(network.stages) else images
