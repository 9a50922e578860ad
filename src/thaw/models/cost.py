"""What a network costs and what it is made of, from a forward pass of one image.

A multiply-add counts once, as papers count them, though many call them FLOPs; torchvision's `_ops` are billions.
Convolutions, matrix products and attention count; what is done element by element (normalisation, activation) does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

from thaw.models.network import HEAD, Network, StageFacts, forward_zeros, visit_stages
from thaw.models.parameters import get_batchnorm_layers

Result = TypeVar("Result")


@dataclass(frozen=True)
class StageCost:
    """`multiply_adds` for one image; `batchnorms` are layers."""

    facts: StageFacts
    multiply_adds: int
    num_batchnorms: int


@dataclass(frozen=True)
class LayerInfo:
    """A module without modules inside, or parameters that a module holds itself. `path` is the library's own; `shape`
    of the last output for one image, without the batch, None where the module is not called as such; `parameters` are
    its own alone, so that those of all layers add up to the network's."""

    stage: str
    path: str
    module_type: str
    shape: tuple[int, ...] | None
    num_parameters: int


def on_meta_device(build: Callable[[], Result]) -> Result:
    """`build()` on torch's meta device, where tensors have shapes and no values: ViT-g takes a second and no memory.
    Where that fails, because a constructor computes with tensors (torchvision's RegNet its widths), with values."""
    try:
        with torch.device("meta"):
            return build()
    except Exception:  # of whatever kind: what is no matter of the meta device is raised again
        return build()


def compute_cost(model: nn.Module, size: int) -> tuple[int, int]:
    """Parameters, and multiply-adds for one image of `size` x `size`, of a classifier as its library has it."""
    with FlopCounterMode(display=False) as counter:
        forward_zeros(model, size)
    return sum(parameter.numel() for parameter in model.parameters()), _count_multiply_adds(counter)


def compute_stage_costs(network: Network, size: int) -> list[StageCost]:
    """One entry a stage, input to output, then the head."""
    costs: list[StageCost] = []

    def record_cost(facts: StageFacts, part: nn.Module) -> None:
        previous_multiply_adds = sum(
            cost.multiply_adds for cost in costs
        )  # parts run one after the other; between them, a mean
        costs.append(
            StageCost(facts, _count_multiply_adds(counter) - previous_multiply_adds, len(get_batchnorm_layers(part)))
        )

    with FlopCounterMode(display=False) as counter:
        visit_stages(network, size, record_cost)
    return costs


def _count_multiply_adds(counter: FlopCounterMode) -> int:
    return counter.get_total_flops() // 2  # torch counts the multiplication and the addition


def list_layers(network: Network, size: int) -> list[LayerInfo]:
    """Every layer of `network`, stage by stage, in the order in which the library defines them; identities are left
    out."""
    parts = {**dict(network.stages.items()), HEAD: network.head}
    shapes = _compute_output_shapes(network, size)
    return [layer for stage, part in parts.items() for layer in _iter_layers(stage, part, shapes)]


def _iter_layers(stage: str, part: nn.Module, shapes: dict[nn.Module, tuple[int, ...]]) -> Iterator[LayerInfo]:
    for path, module in part.named_modules(prefix=HEAD if stage == HEAD else ""):
        own_parameters = dict(module.named_parameters(prefix=path, recurse=False))
        if type(module) is nn.Module or isinstance(
            module, fx.GraphModule
        ):  # what the cut has put in the place of the library's own
            yield from (
                LayerInfo(stage, name, "Parameter", None, parameter.numel())
                for name, parameter in own_parameters.items()
            )
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
