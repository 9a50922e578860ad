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

from thaw.network.forward import pass_zeros
from thaw.network.kinds import batchnorms
from thaw.network.network import HEAD, Network, StageFacts, look_through

Result = TypeVar("Result")


@dataclass(frozen=True)
class StageCost:
    """`multiply_adds` for one image; `batchnorms` are layers."""

    facts: StageFacts
    multiply_adds: int
    batchnorms: int


@dataclass(frozen=True)
class Layer:
    """A module without modules inside, or parameters that a module holds itself. `path` is the library's own; `shape`
    of the last output for one image, without the batch, None where the module is not called as such; `parameters` are
    its own alone, so that those of all layers add up to the network's."""

    stage: str
    path: str
    kind: str
    shape: tuple[int, ...] | None
    parameters: int


def without_values(build: Callable[[], Result]) -> Result:
    """`build()` on torch's meta device, where tensors have shapes and no values: ViT-g takes a second and no memory.
    Where that fails, because a constructor computes with tensors (torchvision's RegNet its widths), with values."""
    try:
        with torch.device("meta"):
            return build()
    except Exception:  # of whatever kind: what is no matter of the meta device is raised again
        return build()


def cost_of(model: nn.Module, size: int) -> tuple[int, int]:
    """Parameters, and multiply-adds for one image of `size` x `size`, of a classifier as its library has it."""
    with FlopCounterMode(display=False) as counter:
        pass_zeros(model, size)
    return sum(one.numel() for one in model.parameters()), _multiply_adds(counter)


def stage_costs(network: Network, size: int) -> list[StageCost]:
    """One entry a stage, input to output, then the head."""
    rows: list[StageCost] = []

    def note(facts: StageFacts, part: nn.Module) -> None:
        spent_before = sum(one.multiply_adds for one in rows)  # parts run one after the other; between them, a mean
        rows.append(StageCost(facts, _multiply_adds(counter) - spent_before, len(batchnorms(part))))

    with FlopCounterMode(display=False) as counter:
        look_through(network, size, note)
    return rows


def _multiply_adds(counter: FlopCounterMode) -> int:
    return counter.get_total_flops() // 2  # torch counts the multiplication and the addition


def layers(network: Network, size: int) -> list[Layer]:
    """Every layer of `network`, stage by stage, in the order in which the library defines them; identities are left
    out."""
    parts = {**dict(network.stages.items()), HEAD: network.head}
    shapes = _output_shapes(network, size)
    return [layer for stage, part in parts.items() for layer in _layers(stage, part, shapes)]


def _layers(stage: str, part: nn.Module, shapes: dict[nn.Module, tuple[int, ...]]) -> Iterator[Layer]:
    for path, module in part.named_modules(prefix=HEAD if stage == HEAD else ""):
        own = dict(module.named_parameters(prefix=path, recurse=False))
        if type(module) is nn.Module or isinstance(
            module, fx.GraphModule
        ):  # what the cut has put in the place of the library's own
            yield from (Layer(stage, name, "Parameter", None, one.numel()) for name, one in own.items())
        elif own or (not isinstance(module, nn.Identity) and not any(True for _ in module.children())):
            count = sum(one.numel() for one in own.values())
            yield Layer(stage, path, type(module).__name__, shapes.get(module), count)


def _output_shapes(network: Network, size: int) -> dict[nn.Module, tuple[int, ...]]:
    shapes: dict[nn.Module, tuple[int, ...]] = {}

    def note(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor):
            shapes[module] = tuple(output.shape[1:])

    pass_zeros(network, size, [module.register_forward_hook(note) for module in network.modules()])
    return shapes
