"""What a network costs and what it is made of, from a forward pass of one image.

A multiply-add counts once, as papers count them, though many call them FLOPs; torchvision's `_ops` are billions.
Convolutions, matrix products and attention count; what is done element by element (normalisation, activation) does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

from thaw.network.kinds import batchnorms
from thaw.network.network import HEAD, Network, StageFacts, facts

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
    with _counting(model) as multiply_adds:
        model(torch.zeros(1, 3, size, size))
        return sum(one.numel() for one in model.parameters()), multiply_adds()


def stage_costs(network: Network, size: int) -> list[StageCost]:
    """One entry a stage, input to output, then the head."""
    rows, spent = facts(network, size), dict[str, int]()
    parts = {one.name: network.part(one.name) for one in rows}
    with _counting(network) as multiply_adds:
        hooks = [part.register_forward_pre_hook(_before(spent, name, multiply_adds)) for name, part in parts.items()]
        hooks += [part.register_forward_hook(_after(spent, name, multiply_adds)) for name, part in parts.items()]
        network(torch.zeros(1, 3, size, size))
    for hook in hooks:
        hook.remove()
    return [StageCost(row, spent[row.name], len(batchnorms(parts[row.name]))) for row in rows]


def _before(spent: dict[str, int], name: str, count: Callable[[], int]) -> Callable[[nn.Module, object], None]:
    def note(module: nn.Module, inputs: object) -> None:
        spent[name] = -count()

    return note


def _after(spent: dict[str, int], name: str, count: Callable[[], int]) -> Callable[[nn.Module, object, object], None]:
    def note(module: nn.Module, inputs: object, output: object) -> None:
        spent[name] += count()

    return note


@contextmanager
def _counting(model: nn.Module) -> Iterator[Callable[[], int]]:
    """Multiply-adds so far; the model is in evaluation mode inside."""
    mode = model.training
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        yield lambda: counter.get_total_flops() // 2  # torch counts the multiplication and the addition
    model.train(mode)


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

    hooks = [module.register_forward_hook(note) for module in network.modules()]
    mode = network.training
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, size, size))
    network.train(mode)
    for hook in hooks:
        hook.remove()
    return shapes
