"""Multiply-adds, parameters and layers of a network, measured in a forward pass of one image.

A multiply-add counts once, as in papers, though many call it a FLOP; torchvision's `_ops` are billions of them.
Convolutions, matrix products and attention count; elementwise operations (normalization, activation) do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

from thaw.models.network import HEAD, Network, StageFacts, forward_zeros, get_batchnorm_layers, visit_parts

Result = TypeVar("Result")


@dataclass(frozen=True)
class StageCost:
    """Facts about a stage or the head, its multiply-adds for one image and its number of BatchNorm layers."""

    facts: StageFacts
    multiply_adds: int
    num_batchnorms: int


@dataclass(frozen=True)
class LayerInfo:
    """A module without submodules, or a parameter that a module with submodules holds itself.

    `path` is the library's. `shape` is the last output's for one image, without the batch dimension; None where the
    layer is not called as a module. `num_parameters` counts the layer's own alone: those of all layers add up to the
    network's.
    """

    stage: str
    path: str
    module_type: str
    shape: tuple[int, ...] | None
    num_parameters: int


def on_meta_device(build: Callable[[], Result]) -> Result:
    """Call `build()` on torch's meta device, where tensors have shapes and no values: ViT-g takes a second, no memory.

    Where that fails because a constructor computes with tensors (torchvision's RegNet its widths), call it normally.
    """
    try:
        with torch.device("meta"):
            return build()
    except Exception:  # of any kind: an error that has nothing to do with the meta device is raised again
        return build()


def compute_cost(model: nn.Module, size: int) -> tuple[int, int]:
    """Compute the parameters of a library's classifier and its multiply-adds for one image of `size` x `size`."""
    with _count_flops(model) as counter:
        forward_zeros(model, size)
    return sum(parameter.numel() for parameter in model.parameters()), _count_multiply_adds(counter)


def compute_stage_costs(network: Network, size: int) -> list[StageCost]:
    """Compute the cost of each stage from input to output, then that of the head."""
    return compute_part_costs(network, network.get_parts(), size)


def compute_part_costs(model: nn.Module, parts: Mapping[str, nn.Module], size: int) -> list[StageCost]:
    """Compute the cost of each of the `parts` of `model`, which run one after another."""
    costs: list[StageCost] = []

    def record_cost(facts: StageFacts, part: nn.Module) -> None:
        previous_multiply_adds = sum(cost.multiply_adds for cost in costs)  # between parts there is at most a mean
        multiply_adds = _count_multiply_adds(counter) - previous_multiply_adds
        costs.append(StageCost(facts, multiply_adds, len(get_batchnorm_layers(part))))

    with _count_flops(model) as counter:
        visit_parts(model, parts, size, record_cost)
    return costs


@contextmanager
def _count_flops(model: nn.Module) -> Iterator[FlopCounterMode]:
    """Count the operations of `model`, whose parameters need no gradients meanwhile.

    torch's counter follows the gradients of what enters a module, and fails where that is a parameter, as the query of
    SigLIP's attention pooling.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        with FlopCounterMode(display=False) as counter:
            yield counter
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


def _count_multiply_adds(counter: FlopCounterMode) -> int:
    return counter.get_total_flops() // 2  # torch counts the multiplication and the addition


def list_layers(network: Network, size: int) -> list[LayerInfo]:
    """List all layers but identities, stage by stage, in the order in which the library defines them."""
    shapes = _compute_output_shapes(network, size)
    parts = network.get_parts()
    return [layer for stage, part in parts.items() for layer in _iter_layers(stage, part, shapes)]


def _iter_layers(stage: str, part: nn.Module, shapes: dict[nn.Module, tuple[int, ...]]) -> Iterator[LayerInfo]:
    for path, module in part.named_modules(prefix=HEAD if stage == HEAD else ""):
        own_parameters = dict(module.named_parameters(prefix=path, recurse=False))
        is_container = type(module) is nn.Module or isinstance(module, fx.GraphModule)  # replaces the library's module
        if is_container:
            for name, parameter in own_parameters.items():
                yield LayerInfo(stage, name, "Parameter", None, parameter.numel())
        elif own_parameters or (not isinstance(module, nn.Identity) and not any(True for _ in module.children())):
            num_parameters = sum(parameter.numel() for parameter in own_parameters.values())
            yield LayerInfo(stage, path, type(module).__name__, shapes.get(module), num_parameters)


def _compute_output_shapes(network: Network, size: int) -> dict[nn.Module, tuple[int, ...]]:
    shapes: dict[nn.Module, tuple[int, ...]] = {}

    def record_shape(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor):
            shapes[module] = tuple(output.shape[1:])

    forward_zeros(network, size, [module.register_forward_hook(record_shape) for module in network.modules()])
    return shapes
