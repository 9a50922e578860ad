"""Any classifier -> an ordered list of stages, without code per architecture.

The forward pass is traced only as deep as the cuts need: whatever holds most of the depth is entered, everything below
stays the library's own module, called as it is. A cut is made only where a single tensor passes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from thaw.config.faults import Fault, UserFault

DOMINANT = 0.8  # of the weight layers: a trunk to enter. ResNet-152's layer3 has 0.70, Swin-B's third stage 0.75


@dataclass(frozen=True)
class Split:
    """`stages` by name, input to output: together, all before the classifier layer. `classifier` is that layer's path
    in the source model."""

    stages: dict[str, fx.GraphModule]
    classifier: str


def split(model: nn.Module, size: int) -> Split:
    """Cuts `model` (float [n, 3, size, size] -> logits) into stages; its last weight layer is left out.

    Raises:
        UserFault: where the model does not take images of `size`, or its forward pass cannot be traced.
    """
    mode = model.training
    model.eval()
    try:
        graph, classifier = _traced(model)
        nodes = _before(graph, classifier)
        shapes = _shapes(model, graph, size)
        groups = _grouped(model, nodes, shapes, classifier)
        return Split({name: _module(model, group) for name, group in groups}, str(classifier.target))
    finally:
        model.train(mode)


class _Tracer(fx.Tracer):
    """Enters the modules named in `entered` and calls all others as they are."""

    def __init__(self, entered: set[str]) -> None:
        super().__init__()
        self.entered = entered

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name not in self.entered


def _traced(model: nn.Module) -> tuple[fx.Graph, fx.Node]:
    """The graph, entered as deep as trunk and classifier ask for, and the classifier's node."""
    entered: set[str] = set()
    sealed: set[str] = set()  # cannot be traced inside
    graph = _trace(model, entered)
    while True:
        calls = [node for node in graph.nodes if node.op == "call_module" and _depth(model, node)]
        inner = _to_enter(model, calls, sealed)
        if inner is None:
            return graph, calls[-1]
        try:
            graph = _trace(model, entered | {inner})
            entered.add(inner)
        except UserFault:
            sealed.add(inner)


def _trace(model: nn.Module, entered: set[str]) -> fx.Graph:
    try:
        return _Tracer(entered).trace(model, _defaults(model))
    except (fx.proxy.TraceError, TypeError, ValueError, AttributeError, RuntimeError, AssertionError) as error:
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
        fault = Fault(f"{type(model).__name__} cannot be traced", reason, fix="another backbone")
        raise UserFault("the backbone cannot be cut into stages.", [fault]) from error


def _defaults(model: nn.Module) -> dict[str, object]:
    """Optional inputs of the forward pass beside the images (timm's `attn_mask`), at their defaults."""
    parameters = list(inspect.signature(model.forward).parameters.values())[1:]
    return {one.name: one.default for one in parameters if one.default is not one.empty}


def _to_enter(model: nn.Module, calls: list[fx.Node], sealed: set[str]) -> str | None:
    """The path of the next module to look into: the last, until it is one layer, then the trunk."""
    last = calls[-1]
    if _depth(model, last) > 1 or _has_children(model, last):
        return None if str(last.target) in sealed else str(last.target)
    family = str(last.target).partition(".")[0]
    trunk = [node for node in calls if not str(node.target).startswith(f"{family}.") and node is not last]
    total = sum(_depth(model, node) for node in trunk)
    for node in trunk:
        if _depth(model, node) >= max(2, DOMINANT * total) and str(node.target) not in sealed:
            return str(node.target)
    return None


def _has_children(model: nn.Module, node: fx.Node) -> bool:
    return any(True for _ in model.get_submodule(str(node.target)).children())


def _depth(model: nn.Module, node: fx.Node) -> int:
    """Weight layers in the module that `node` calls."""
    if node.op != "call_module":
        return 0
    modules = model.get_submodule(str(node.target)).modules()
    return sum(any(weight.ndim >= 2 for weight in one.parameters(recurse=False)) for one in modules)


def _weighs(model: nn.Module, node: fx.Node) -> bool:
    if node.op == "get_attr":
        return True
    return node.op == "call_module" and any(True for _ in model.get_submodule(str(node.target)).parameters())


def _before(graph: fx.Graph, classifier: fx.Node) -> list[fx.Node]:
    """What the classifier's input depends on, in order."""
    needed = {classifier.all_input_nodes[0]}
    for node in reversed(graph.nodes):
        if node in needed:
            needed.update(node.all_input_nodes)
    return [node for node in graph.nodes if node in needed]


def _shapes(model: nn.Module, graph: fx.Graph, size: int) -> dict[fx.Node, tuple[int, ...]]:
    """Output shapes of the modules that the graph calls, for one image."""
    shapes: dict[fx.Node, tuple[int, ...]] = {}

    def noting(node: fx.Node) -> Callable[[nn.Module, object, object], None]:
        def note(module: nn.Module, inputs: object, output: object) -> None:
            shapes[node] = tuple(output.shape) if isinstance(output, Tensor) else ()

        return note

    calls = [node for node in graph.nodes if node.op == "call_module"]
    hooks = [model.get_submodule(str(node.target)).register_forward_hook(noting(node)) for node in calls]
    try:
        with torch.no_grad():
            model(torch.zeros(1, 3, size, size))
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        fault = Fault(
            f"dataset.image_size={size}", reason, fix="dataset.image_size=null, the size of the source weights"
        )
        raise UserFault(f"{type(model).__name__} does not take images of {size} pixels.", [fault]) from error
    finally:
        for hook in hooks:
            hook.remove()
    return shapes


def _grouped(
    model: nn.Module, nodes: list[fx.Node], shapes: dict[fx.Node, tuple[int, ...]], classifier: fx.Node
) -> list[tuple[str, list[fx.Node]]]:
    """Named runs of nodes. What has weights opens a stage, what has none (a pooling, say) closes the one before."""
    anchors = [node for node in nodes if _depth(model, node) > 1]
    containers = [node for node in anchors if isinstance(model.get_submodule(str(node.target)), nn.Sequential)]
    sides = {_side(shapes.get(node)) for node in anchors}
    by_side = len(containers) < 2 and (not anchors or len(sides) > 1)
    cuts = set(_single_crossings(nodes))
    groups: list[list[fx.Node]] = [[]]
    for node in nodes:
        if node in cuts and _weighs(model, node) and _opens(model, node, groups[-1], by_side, shapes):
            groups.append([])
        groups[-1].append(node)
    return list(zip(_names(model, groups, classifier), groups, strict=True))


def _single_crossings(nodes: list[fx.Node]) -> Iterator[fx.Node]:
    """Nodes before which one value alone passes from earlier to later ones: its only stage-to-stage input."""
    place = {node: index for index, node in enumerate(nodes)}
    last_use = {node: max((place[user] for user in node.users if user in place), default=len(nodes)) for node in nodes}
    for index, node in enumerate(nodes):
        passing = [earlier for earlier in nodes[:index] if last_use[earlier] >= index]
        if len(passing) == 1 and index > 0:
            yield node


def _opens(
    model: nn.Module, node: fx.Node, group: list[fx.Node], by_side: bool, shapes: dict[fx.Node, tuple[int, ...]]
) -> bool:
    weighing = [one for one in group if _weighs(model, one)]
    if not weighing:
        return False
    if by_side:
        return _side(shapes.get(node)) != _side(shapes.get(weighing[-1]))
    has_anchor = any(_depth(model, one) > 1 for one in group)
    is_stem = not has_anchor and any(one.op == "placeholder" for one in group)
    return has_anchor or (is_stem and _depth(model, node) > 1)


def _side(shape: tuple[int, ...] | None) -> tuple[int, ...]:
    """What tells resolutions apart: height and width of a map, channels first or last; nothing for tokens."""
    if shape is None or len(shape) != 4:
        return ()
    channels_last = shape[1] == shape[2] != shape[3]
    return shape[1:3] if channels_last else shape[2:]


def _names(model: nn.Module, groups: list[list[fx.Node]], classifier: fx.Node) -> list[str]:
    """The library's own name where it is a word; else `stem`, `block1` ..., and `final` behind the last block."""
    family = str(classifier.target).partition(".")[0]
    anchored = [any(_depth(model, node) > 1 for node in group) for group in groups]
    names: list[str] = []
    for number, group in enumerate(groups):
        path = _path_of(model, group)
        if path.startswith(f"{family}."):
            name = family
        elif any(anchored[1:]) and not anchored[number] and number == 0:
            name = "stem"
        elif path and not path.rpartition(".")[2].isdigit():
            name = path.rpartition(".")[2]
        elif any(anchored) and not anchored[number]:
            name = "final"
        else:
            name = f"block{1 + sum(one.startswith('block') for one in names)}"
        names.append(name if name not in names else f"{name}_{number}")
    return names


def _path_of(model: nn.Module, group: list[fx.Node]) -> str:
    """The module that a stage is named after: its first block, else its first layer with weights."""
    calls = [node for node in group if node.op == "call_module" and _weighs(model, node)]
    deepest = [node for node in calls if _depth(model, node) > 1]
    return str((deepest or calls)[0].target) if calls else ""


def _module(model: nn.Module, group: list[fx.Node]) -> fx.GraphModule:
    """The nodes as a module of one input and one output, whose parameters keep the paths they have in `model`."""
    graph, copies = fx.Graph(), {}
    inside = set(group)
    entries = dict.fromkeys(one for node in group for one in node.all_input_nodes if one not in inside)
    for node in [*entries, *(node for node in group if node.op == "placeholder")]:
        copies[node] = graph.placeholder("features")
    for node in group:
        if node.op != "placeholder":
            copies[node] = graph.node_copy(node, lambda one: copies[one])
    graph.output(copies[group[-1]])
    return fx.GraphModule(model, graph, class_name="Stage")
