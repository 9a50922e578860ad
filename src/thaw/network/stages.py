"""Any classifier -> an ordered list of stages, without code per architecture. A cut is made only where a single tensor
passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, fx, nn

from thaw.config.faults import Fault, UserFault
from thaw.network.forward import pass_zeros
from thaw.network.stage_names import stage_names
from thaw.network.tracing import Traced, depth, parameters, traced, within

Shapes = dict[fx.Node, tuple[int, ...]]


@dataclass(frozen=True)
class Split:
    """`stages` by name, input to output: together, all before what is replaced. `classifier` is the path of the last
    weight layer in the source model. `unused` are the paths of the parameters that neither the stages nor what is
    replaced need: the second classifier of a distilled network, auxiliary classifiers."""

    stages: dict[str, fx.GraphModule]
    classifier: str
    unused: tuple[str, ...]


def split(model: nn.Module, size: int, replaces: Literal["last", "classifier"] = "last") -> Split:
    """Cuts `model` (float [n, 3, size, size] -> logits) into stages, on the device that it is on.

    Left out is its last weight layer, or with `replaces="classifier"` all of the module around that layer: VGG's three
    linear layers, ConvNeXt's norm before the linear one; a pooling in there stays. Where logits of two last layers are
    averaged, the first is the one replaced, and the other is `unused`.

    Raises:
        UserFault: where the model does not take images of `size`, or its forward pass cannot be traced.
    """
    mode = model.training
    model.eval()
    try:
        found = traced(model)
        whole = found.nodes
        nodes = _before_container(model, found) if replaces == "classifier" else whole
        blocks = _blocks(model, nodes)
        groups = _grouped(model, nodes, blocks, found.container, _shapes(model, nodes, size))
        names = stage_names(model, groups, blocks, found.container)
        stages = {name: _module(model, group) for name, group in zip(names, groups, strict=True)}
        return Split(stages, str(found.classifier.target), _unused(model, [*whole, found.classifier]))
    finally:
        model.train(mode)


def _before_container(model: nn.Module, found: Traced) -> list[fx.Node]:
    """The nodes that the input of the container's first layer depends on. A pooling before that layer stays: the
    network knows where its maps have their channels."""
    inside = [node for node in found.nodes if _is_inside(node, found.container) and _learns_or_drops(model, node)]
    if not inside:
        return found.nodes
    needed = {next(one for one in inside[0].all_input_nodes if one.op != "get_attr")}
    for node in reversed(found.nodes):
        if node in needed:
            needed.update(node.all_input_nodes)
    return [node for node in found.nodes if node in needed]


def _learns_or_drops(model: nn.Module, node: fx.Node) -> bool:
    is_dropout = node.op == "call_module" and isinstance(model.get_submodule(str(node.target)), nn.Dropout)
    return is_dropout or bool(parameters(model, node))


def _is_inside(node: fx.Node, container: str) -> bool:
    targets = [one.target for one in (node, *node.all_input_nodes) if one.op == "get_attr" or one is node]
    return any(within(target, container) for target in targets)


def _unused(model: nn.Module, nodes: list[fx.Node]) -> tuple[str, ...]:
    used = {id(one) for node in nodes for one in parameters(model, node)}
    return tuple(path for path, one in model.named_parameters() if id(one) not in used)


def _shapes(model: nn.Module, nodes: list[fx.Node], size: int) -> Shapes:
    """Output shapes of the modules that the nodes call, for one image."""
    shapes: Shapes = {}

    def noting(node: fx.Node) -> Callable[[nn.Module, object, object], None]:
        def note(module: nn.Module, inputs: object, output: object) -> None:
            shapes[node] = tuple(output.shape) if isinstance(output, Tensor) else ()

        return note

    calls = [node for node in nodes if node.op == "call_module"]
    hooks = [model.get_submodule(str(node.target)).register_forward_hook(noting(node)) for node in calls]
    try:
        pass_zeros(model, size, hooks)
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        fault = Fault(
            f"dataset.image_size={size}", reason, fix="dataset.image_size=null, the size of the source weights"
        )
        raise UserFault(f"{type(model).__name__} does not take images of {size} pixels.", [fault]) from error
    return shapes


def _grouped(
    model: nn.Module, nodes: list[fx.Node], blocks: set[fx.Node], container: str, shapes: Shapes
) -> list[list[fx.Node]]:
    """Runs of nodes. What has weights opens a stage, what has none (a pooling, say) closes the one before."""
    opens = _opening(model, blocks, shapes)
    cuts = _cuts(model, nodes)
    weighs = {node for node in nodes if parameters(model, node)}
    groups: list[list[fx.Node]] = [[]]
    for node in nodes:
        before = [one for one in groups[-1] if one in weighs]
        can_open = node in cuts and node in weighs and before and not _are_inside([before[-1], node], container)
        if can_open and opens(node, before, len(groups) == 1 and blocks.isdisjoint(before)):
            groups.append([])
        groups[-1].append(node)
    return groups


def _opening(model: nn.Module, blocks: set[fx.Node], shapes: Shapes) -> Callable[[fx.Node, list[fx.Node], bool], bool]:
    """Whether a node opens a stage, given the weighing nodes of the stage so far, and whether that is a stem still."""
    containers = [node for node in blocks if isinstance(model.get_submodule(str(node.target)), nn.Sequential)]
    sides = {_side(shapes.get(node)) for node in blocks}
    by_side = not blocks or (len(containers) < 2 and len(sides) >= 3)  # MobileNetV2: 17 blocks of 5 resolutions
    block_is_stage = len(blocks) < 2 * len(sides)

    def opens(node: fx.Node, before: list[fx.Node], is_stem: bool) -> bool:
        if is_stem and blocks and (node not in blocks or block_is_stage or not by_side):
            return node in blocks
        if by_side:
            is_next = block_is_stage and node in blocks and not blocks.isdisjoint(before)
            return is_next or _side(shapes.get(node)) != _side(shapes.get(before[-1]))
        return not blocks.isdisjoint(before)

    return opens


def _are_inside(nodes: list[fx.Node], container: str) -> bool:
    return all(_is_inside(node, container) for node in nodes)


def _blocks(model: nn.Module, nodes: list[fx.Node]) -> set[fx.Node]:
    """Calls of blocks, which make stages; none where most layers stand alone, as VGG's do."""
    found = [node for node in nodes if depth(model, node) > 1]
    in_blocks = sum(depth(model, node) for node in found)
    return set(found) if 2 * in_blocks >= sum(depth(model, node) for node in nodes) else set()


def _cuts(model: nn.Module, nodes: list[fx.Node]) -> set[fx.Node]:
    """Nodes before which one value alone passes from earlier to later ones, and no parameter is used on both sides."""
    place = {node: index for index, node in enumerate(nodes)}
    last_use = [max((place[user] for user in node.users if user in place), default=len(nodes)) for node in nodes]
    uses: dict[int, list[int]] = {}
    for node in nodes:
        for one in parameters(model, node):
            uses.setdefault(id(one), []).append(place[node])
    shared = [(places[0], places[-1]) for places in uses.values() if places[0] < places[-1]]
    passing = [sum(end >= index for end in last_use[:index]) for index in range(len(nodes))]
    return {
        node
        for node, index in place.items()
        if passing[index] == 1 and not any(first < index <= last for first, last in shared)
    }


def _side(shape: tuple[int, ...] | None) -> tuple[int, ...]:
    """What tells resolutions apart: height and width of a map, channels first or last, or the number of tokens."""
    if shape is None or len(shape) not in (3, 4):
        return ()
    if len(shape) == 3:
        return shape[1:2]
    channels_last = shape[1] == shape[2] != shape[3]
    return shape[1:3] if channels_last else shape[2:]


def _module(model: nn.Module, group: list[fx.Node]) -> fx.GraphModule:
    """The nodes as a module of one input and one output, whose parameters keep the paths they have in `model`."""
    graph, copies = fx.Graph(), {}
    inside = set(group)
    entries = dict.fromkeys(one for node in group for one in node.all_input_nodes if one not in inside)
    values = [one for one in entries if one.op != "get_attr"]
    for node in [*values, *(node for node in group if node.op == "placeholder")]:
        copies[node] = graph.placeholder("features")
    for node in [*(one for one in entries if one.op == "get_attr"), *group]:
        if node.op != "placeholder":
            copies[node] = graph.node_copy(node, lambda one: copies[one])
    graph.output(copies[group[-1]])
    return fx.GraphModule(model, graph, class_name="Stage")
