"""Any classifier -> an ordered list of stages, without code per architecture. A cut is made only where a single tensor
passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, fx, nn

from thaw.config.errors import Problem, UserError
from thaw.models.network import forward_zeros
from thaw.models.stage_names import name_stages
from thaw.models.tracing import TracedModel, count_weight_layers, get_node_parameters, is_within, trace_model

Shapes = dict[fx.Node, tuple[int, ...]]


@dataclass(frozen=True)
class StageSplit:
    """`stages` by name, input to output: together, all before what is replaced. `classifier` is the path of the last
    weight layer in the source model. `unused` are the paths of the parameters that neither the stages nor what is
    replaced need: the second classifier of a distilled network, auxiliary classifiers."""

    stages: dict[str, fx.GraphModule]
    classifier_path: str
    unused_parameters: tuple[str, ...]


def split_stages(model: nn.Module, size: int, replaces: Literal["last", "classifier"] = "last") -> StageSplit:
    """Cuts `model` (float [n, 3, size, size] -> logits) into stages, on the device that it is on.

    Left out is its last weight layer, or with `replaces="classifier"` all of the module around that layer: VGG's three
    linear layers, ConvNeXt's norm before the linear one; a pooling in there stays. Where logits of two last layers are
    averaged, the first is the one replaced, and the other is `unused`.

    Raises:
        UserFault: where the model does not take images of `size`, or its forward pass cannot be traced.
    """
    was_training = model.training
    model.eval()
    try:
        traced_model = trace_model(model)
        all_nodes = traced_model.nodes
        nodes = _select_nodes_before_container(model, traced_model) if replaces == "classifier" else all_nodes
        blocks = _find_blocks(model, nodes)
        groups = _group_nodes(model, nodes, blocks, traced_model.container_path, _compute_shapes(model, nodes, size))
        names = name_stages(model, groups, blocks, traced_model.container_path)
        stages = {name: _build_stage_module(model, group) for name, group in zip(names, groups, strict=True)}
        return StageSplit(
            stages,
            str(traced_model.classifier_node.target),
            _find_unused_parameters(model, [*all_nodes, traced_model.classifier_node]),
        )
    finally:
        model.train(was_training)


def _select_nodes_before_container(model: nn.Module, traced_model: TracedModel) -> list[fx.Node]:
    """The nodes that the input of the container's first layer depends on. A pooling before that layer stays: the
    network knows where its maps have their channels."""
    container_nodes = [
        node
        for node in traced_model.nodes
        if _is_inside(node, traced_model.container_path) and _has_weights_or_dropout(model, node)
    ]
    if not container_nodes:
        return traced_model.nodes
    needed_nodes = {
        next(input_node for input_node in container_nodes[0].all_input_nodes if input_node.op != "get_attr")
    }
    for node in reversed(traced_model.nodes):
        if node in needed_nodes:
            needed_nodes.update(node.all_input_nodes)
    return [node for node in traced_model.nodes if node in needed_nodes]


def _has_weights_or_dropout(model: nn.Module, node: fx.Node) -> bool:
    is_dropout = node.op == "call_module" and isinstance(model.get_submodule(str(node.target)), nn.Dropout)
    return is_dropout or bool(get_node_parameters(model, node))


def _is_inside(node: fx.Node, container_path: str) -> bool:
    targets = [
        candidate.target
        for candidate in (node, *node.all_input_nodes)
        if candidate.op == "get_attr" or candidate is node
    ]
    return any(is_within(target, container_path) for target in targets)


def _find_unused_parameters(model: nn.Module, nodes: list[fx.Node]) -> tuple[str, ...]:
    used_ids = {id(parameter) for node in nodes for parameter in get_node_parameters(model, node)}
    return tuple(path for path, parameter in model.named_parameters() if id(parameter) not in used_ids)


def _compute_shapes(model: nn.Module, nodes: list[fx.Node], size: int) -> Shapes:
    """Output shapes of the modules that the nodes call, for one image."""
    shapes: Shapes = {}

    def build_hook(node: fx.Node) -> Callable[[nn.Module, object, object], None]:
        def record_shape(module: nn.Module, inputs: object, output: object) -> None:
            shapes[node] = tuple(output.shape) if isinstance(output, Tensor) else ()

        return record_shape

    called_nodes = [node for node in nodes if node.op == "call_module"]
    hooks = [model.get_submodule(str(node.target)).register_forward_hook(build_hook(node)) for node in called_nodes]
    try:
        forward_zeros(model, size, hooks)
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        problem = Problem(
            f"dataset.image_size={size}", reason, fix="dataset.image_size=null, the size of the source weights"
        )
        raise UserError(f"{type(model).__name__} does not take images of {size} pixels.", [problem]) from error
    return shapes


def _group_nodes(
    model: nn.Module, nodes: list[fx.Node], blocks: set[fx.Node], container_path: str, shapes: Shapes
) -> list[list[fx.Node]]:
    """Runs of nodes. What has weights opens a stage, what has none (a pooling, say) closes the one before."""
    is_stage_start = _build_stage_start_rule(model, blocks, shapes)
    cut_nodes = _find_cut_nodes(model, nodes)
    weight_nodes = {node for node in nodes if get_node_parameters(model, node)}
    groups: list[list[fx.Node]] = [[]]
    for node in nodes:
        preceding_nodes = [group_node for group_node in groups[-1] if group_node in weight_nodes]
        can_open = (
            node in cut_nodes
            and node in weight_nodes
            and preceding_nodes
            and not _are_inside([preceding_nodes[-1], node], container_path)
        )
        if can_open and is_stage_start(node, preceding_nodes, len(groups) == 1 and blocks.isdisjoint(preceding_nodes)):
            groups.append([])
        groups[-1].append(node)
    return groups


def _build_stage_start_rule(
    model: nn.Module, blocks: set[fx.Node], shapes: Shapes
) -> Callable[[fx.Node, list[fx.Node], bool], bool]:
    """Whether a node opens a stage, given the weighing nodes of the stage so far, and whether that is a stem still."""
    sequential_blocks = [node for node in blocks if isinstance(model.get_submodule(str(node.target)), nn.Sequential)]
    resolutions = {_get_resolution(shapes.get(node)) for node in blocks}
    is_split_by_resolution = not blocks or (
        len(sequential_blocks) < 2 and len(resolutions) >= 3
    )  # MobileNetV2: 17 blocks of 5 resolutions
    is_block_a_stage = len(blocks) < 2 * len(resolutions)

    def is_stage_start(node: fx.Node, preceding_nodes: list[fx.Node], is_stem: bool) -> bool:
        if is_stem and blocks and (node not in blocks or is_block_a_stage or not is_split_by_resolution):
            return node in blocks
        if is_split_by_resolution:
            is_next_block = is_block_a_stage and node in blocks and not blocks.isdisjoint(preceding_nodes)
            return is_next_block or _get_resolution(shapes.get(node)) != _get_resolution(
                shapes.get(preceding_nodes[-1])
            )
        return not blocks.isdisjoint(preceding_nodes)

    return is_stage_start


def _are_inside(nodes: list[fx.Node], container_path: str) -> bool:
    return all(_is_inside(node, container_path) for node in nodes)


def _find_blocks(model: nn.Module, nodes: list[fx.Node]) -> set[fx.Node]:
    """Calls of blocks, which make stages; none where most layers stand alone, as VGG's do."""
    block_nodes = [node for node in nodes if count_weight_layers(model, node) > 1]
    num_layers_in_blocks = sum(count_weight_layers(model, node) for node in block_nodes)
    return (
        set(block_nodes)
        if 2 * num_layers_in_blocks >= sum(count_weight_layers(model, node) for node in nodes)
        else set()
    )


def _find_cut_nodes(model: nn.Module, nodes: list[fx.Node]) -> set[fx.Node]:
    """Nodes before which one value alone passes from earlier to later ones, and no parameter is used on both sides."""
    positions = {node: index for index, node in enumerate(nodes)}
    last_uses = [
        max((positions[user] for user in node.users if user in positions), default=len(nodes)) for node in nodes
    ]
    uses_by_parameter: dict[int, list[int]] = {}
    for node in nodes:
        for parameter in get_node_parameters(model, node):
            uses_by_parameter.setdefault(id(parameter), []).append(positions[node])
    shared_ranges = [
        (use_positions[0], use_positions[-1])
        for use_positions in uses_by_parameter.values()
        if use_positions[0] < use_positions[-1]
    ]
    num_passing_values = [sum(end >= index for end in last_uses[:index]) for index in range(len(nodes))]
    return {
        node
        for node, index in positions.items()
        if num_passing_values[index] == 1 and not any(first < index <= last for first, last in shared_ranges)
    }


def _get_resolution(shape: tuple[int, ...] | None) -> tuple[int, ...]:
    """What tells resolutions apart: height and width of a map, channels first or last, or the number of tokens."""
    if shape is None or len(shape) not in (3, 4):
        return ()
    if len(shape) == 3:
        return shape[1:2]
    is_channels_last = shape[1] == shape[2] != shape[3]
    return shape[1:3] if is_channels_last else shape[2:]


def _build_stage_module(model: nn.Module, group: list[fx.Node]) -> fx.GraphModule:
    """The nodes as a module of one input and one output, whose parameters keep the paths they have in `model`."""
    graph, copies = fx.Graph(), {}
    group_nodes = set(group)
    external_inputs = dict.fromkeys(
        input_node for node in group for input_node in node.all_input_nodes if input_node not in group_nodes
    )
    value_inputs = [input_node for input_node in external_inputs if input_node.op != "get_attr"]
    for node in [*value_inputs, *(node for node in group if node.op == "placeholder")]:
        copies[node] = graph.placeholder("features")
    for node in [*(input_node for input_node in external_inputs if input_node.op == "get_attr"), *group]:
        if node.op != "placeholder":
            copies[node] = graph.node_copy(node, lambda input_node: copies[input_node])
    graph.output(copies[group[-1]])
    return fx.GraphModule(model, graph, class_name="Stage")
