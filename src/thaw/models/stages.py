"""Split any classifier into stages and a head, without code per architecture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, fx, nn

from thaw.config.errors import Problem, UserError
from thaw.models.cost import StageCost, compute_part_costs
from thaw.models.network import HEAD, forward_zeros
from thaw.models.stage_names import name_stages
from thaw.models.tracing import TracedModel, count_weight_layers, get_node_parameters, is_within, trace_model
from thaw.system.tables import build_data_frame, render_html_table, render_text_table

Shapes = dict[fx.Node, tuple[int, ...]]
HEADINGS = ("stage", "output", "parameters", "multiply-adds")


@dataclass(frozen=True)
class BackboneSplit:
    """The layers of a classifier before those that a head replaces.

    `stages` by name, from input to output. `classifier_path` is the path of the last weight layer in the model.
    `unused_parameters` are the paths of the parameters that neither the stages nor the replaced layers need: the second
    classifier of a distilled network, auxiliary classifiers.
    """

    stages: dict[str, fx.GraphModule]
    classifier_path: str
    unused_parameters: tuple[str, ...]


def split_backbone(model: nn.Module, size: int, replaces: Literal["last", "classifier"] = "last") -> BackboneSplit:
    """Split `model` (normalized float [n, 3, size, size] -> logits) into stages, on its device.

    The stages leave out the last weight layer, or with `replaces="classifier"` the module around that layer: VGG's
    three linear layers, ConvNeXt's norm before the linear layer; a pooling in that module stays. Where the logits of
    two last layers are averaged, the first counts as the last layer and the second is unused.

    Raises:
        UserError: where the model does not take images of `size`, or its forward pass cannot be traced.
    """
    was_training = model.training
    model.eval()
    try:
        traced_model = trace_model(model)
        groups = group_stage_nodes(model, traced_model, size, replaces)
        stages = {name: build_graph_module(model, nodes) for name, nodes in groups.items()}
        used_nodes = [*traced_model.nodes, traced_model.classifier_node]
        unused_parameters = _find_unused_parameters(model, used_nodes)
        return BackboneSplit(stages, str(traced_model.classifier_node.target), unused_parameters)
    finally:
        model.train(was_training)


def group_stage_nodes(
    model: nn.Module, traced_model: TracedModel, size: int, replaces: Literal["last", "classifier"] = "last"
) -> dict[str, list[fx.Node]]:
    """Return the nodes of each stage, by name. See `split_backbone`."""
    nodes = _select_nodes_before_container(model, traced_model) if replaces == "classifier" else traced_model.nodes
    blocks, container_path = _find_blocks(model, nodes), traced_model.container_path
    groups = _group_nodes(model, nodes, blocks, container_path, _compute_shapes(model, nodes, size))
    return dict(zip(name_stages(model, groups, blocks, container_path), groups, strict=True))


def _select_nodes_before_container(model: nn.Module, traced_model: TracedModel) -> list[fx.Node]:
    """Return the nodes that the input of the container's first layer depends on.

    A pooling before that layer stays: the library's network knows where its maps have their channels.
    """
    container_nodes = [
        node
        for node in traced_model.nodes
        if _is_inside(node, traced_model.container_path) and _has_weights_or_dropout(model, node)
    ]
    if not container_nodes:
        return traced_model.nodes
    needed_nodes = {next(node for node in container_nodes[0].all_input_nodes if node.op != "get_attr")}
    for node in reversed(traced_model.nodes):
        if node in needed_nodes:
            needed_nodes.update(node.all_input_nodes)
    return [node for node in traced_model.nodes if node in needed_nodes]


def _has_weights_or_dropout(model: nn.Module, node: fx.Node) -> bool:
    is_dropout = node.op == "call_module" and isinstance(model.get_submodule(str(node.target)), nn.Dropout)
    return is_dropout or bool(get_node_parameters(model, node))


def _is_inside(node: fx.Node, container_path: str) -> bool:
    attributes = [input_node for input_node in node.all_input_nodes if input_node.op == "get_attr"]
    return any(is_within(read_node.target, container_path) for read_node in (node, *attributes))


def _find_unused_parameters(model: nn.Module, nodes: list[fx.Node]) -> tuple[str, ...]:
    used_ids = {id(parameter) for node in nodes for parameter in get_node_parameters(model, node)}
    return tuple(path for path, parameter in model.named_parameters() if id(parameter) not in used_ids)


def _compute_shapes(model: nn.Module, nodes: list[fx.Node], size: int) -> Shapes:
    """Compute the output shapes of the modules that the nodes call, for one image."""
    shapes: Shapes = {}

    def build_hook(node: fx.Node) -> Callable[[nn.Module, object, object], None]:
        def record_shape(module: nn.Module, inputs: object, output: object) -> None:
            shapes[node] = tuple(output.shape) if isinstance(output, Tensor) else ()

        return record_shape

    called_nodes = [node for node in nodes if node.op == "call_module"]
    hooks = [model.get_submodule(str(node.target)).register_forward_hook(build_hook(node)) for node in called_nodes]
    try:
        forward_zeros(model, size, hooks)
    except Exception as error:  # MViTv2 indexes beyond its table of positions, others fail in other ways
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        fix = "dataset.image_size=null, the size of the source weights"
        problem = Problem(f"dataset.image_size={size}", reason, fix=fix)
        raise UserError(f"{type(model).__name__} does not take images of {size} pixels.", [problem]) from error
    return shapes


def _group_nodes(
    model: nn.Module, nodes: list[fx.Node], blocks: set[fx.Node], container_path: str, shapes: Shapes
) -> list[list[fx.Node]]:
    """Group consecutive nodes. A node with weights may open a stage; one without (a pooling) ends the stage before."""
    is_stage_start = _build_stage_start_rule(model, blocks, shapes)
    split_nodes = _find_split_nodes(model, nodes)
    weight_nodes = {node for node in nodes if get_node_parameters(model, node)}
    groups: list[list[fx.Node]] = [[]]
    for node in nodes:
        preceding_nodes = [group_node for group_node in groups[-1] if group_node in weight_nodes]
        can_open = (
            node in split_nodes
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
    """Build the rule that decides whether a node opens a stage.

    The rule takes the node, the nodes with weights in the stage so far, and whether that stage is still the stem.
    """
    sequential_blocks = [node for node in blocks if isinstance(model.get_submodule(str(node.target)), nn.Sequential)]
    resolutions = {_get_resolution(shapes.get(node)) for node in blocks}
    # MobileNetV2 has 17 blocks of 5 resolutions: a stage per resolution
    is_split_by_resolution = not blocks or (len(sequential_blocks) < 2 and len(resolutions) >= 3)
    is_block_a_stage = len(blocks) < 2 * len(resolutions)

    def is_stage_start(node: fx.Node, preceding_nodes: list[fx.Node], is_stem: bool) -> bool:
        if is_stem and blocks and (node not in blocks or is_block_a_stage or not is_split_by_resolution):
            return node in blocks
        if is_split_by_resolution:
            is_next_block = is_block_a_stage and node in blocks and not blocks.isdisjoint(preceding_nodes)
            resolution, previous_resolution = (
                _get_resolution(shapes.get(other)) for other in (node, preceding_nodes[-1])
            )
            return is_next_block or resolution != previous_resolution
        return not blocks.isdisjoint(preceding_nodes)

    return is_stage_start


def _are_inside(nodes: list[fx.Node], container_path: str) -> bool:
    return all(_is_inside(node, container_path) for node in nodes)


def _find_blocks(model: nn.Module, nodes: list[fx.Node]) -> set[fx.Node]:
    """Return the nodes that call blocks, which make stages; none where most layers are in no block, as in VGG."""
    block_nodes = [node for node in nodes if count_weight_layers(model, node) > 1]
    num_layers_in_blocks = sum(count_weight_layers(model, node) for node in block_nodes)
    num_layers = sum(count_weight_layers(model, node) for node in nodes)
    return set(block_nodes) if 2 * num_layers_in_blocks >= num_layers else set()


def _find_split_nodes(model: nn.Module, nodes: list[fx.Node]) -> set[fx.Node]:
    """Return the nodes before which the graph can be split.

    A single value passes from the nodes before to the others, and no parameter is used on both sides.
    """
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
    """Return height and width of a map, channels first or last, or the number of tokens."""
    if shape is None or len(shape) not in (3, 4):
        return ()
    if len(shape) == 3:
        return shape[1:2]
    is_channels_last = shape[1] == shape[2] != shape[3]
    return shape[1:3] if is_channels_last else shape[2:]


def build_graph_module(model: nn.Module, nodes: list[fx.Node]) -> fx.GraphModule:
    """Build a module of one input and one output from consecutive nodes; its parameters keep their paths in `model`."""
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    external_inputs = find_external_inputs(nodes)
    value_inputs = [node for node in external_inputs if node.op != "get_attr"]
    attributes = [node for node in external_inputs if node.op == "get_attr"]
    for node in [*value_inputs, *(node for node in nodes if node.op == "placeholder")]:
        copies[node] = graph.placeholder("features")
    for node in [*attributes, *nodes]:
        if node.op != "placeholder":
            copies[node] = graph.node_copy(node, lambda input_node: copies[input_node])
    if nodes[-1].op != "output":
        graph.output(copies[nodes[-1]])
    return fx.GraphModule(model, graph, class_name="Stage")


def find_external_inputs(nodes: list[fx.Node]) -> list[fx.Node]:
    """Return the inputs of `nodes` that are not among them, in order."""
    own_nodes = set(nodes)
    all_inputs = dict.fromkeys(input_node for node in nodes for input_node in node.all_input_nodes)
    return [input_node for input_node in all_inputs if input_node not in own_nodes]


class StagedModel(nn.Module):
    """A network as named stages and a head: float [n, 3, height, width] -> the output of the network.

    `stages` (by name, from input to output) and `head` share their parameters with the network and keep their paths.
    They were traced in evaluation mode. `costs` has the output shape, parameters and multiply-adds of each for an image
    of `size` x `size`, the head last. `name` is the name of the network's class. Shown as a table.
    """

    def __init__(self, name: str, stages: dict[str, nn.Module], head: nn.Module, size: int) -> None:
        super().__init__()
        self.name, self.size = name, size
        self.stages, self.head = nn.ModuleDict(stages), head
        self.costs: tuple[StageCost, ...] = tuple(compute_part_costs(self, {**stages, HEAD: head}, size))

    def forward(self, images: Tensor) -> Tensor:
        """Compute the output of the network."""
        features = images
        for stage in self.stages.values():
            features = stage(features)
        output: Tensor = self.head(features)
        return output

    def to_frame(self) -> Any:
        """Return a row per stage as a pandas data frame, or as a list of dicts where pandas is not installed."""
        return build_data_frame(
            [
                {
                    "stage": cost.facts.name,
                    "output": cost.facts.shape,
                    "parameters": cost.facts.num_parameters,
                    "multiply_adds": cost.multiply_adds,
                }
                for cost in self.costs
            ]
        )

    def __repr__(self) -> str:
        return f"{self._describe()}\n{render_text_table(HEADINGS, self._format_rows(), left_columns=(0, 1))}"

    def _repr_html_(self) -> str:
        return render_html_table(self._describe(), HEADINGS, self._format_rows())

    def _describe(self) -> str:
        count = len(self.stages)
        return f"{self.name}: {count} stage{'' if count == 1 else 's'} and a head, images of {self.size} x {self.size}"

    def _format_rows(self) -> list[list[str]]:
        rows = [
            [
                cost.facts.name,
                " x ".join(map(str, cost.facts.shape)),
                f"{cost.facts.num_parameters:,}",
                f"{cost.multiply_adds:,}",
            ]
            for cost in self.costs
        ]
        num_parameters = sum(cost.facts.num_parameters for cost in self.costs)
        return [*rows, ["total", "", f"{num_parameters:,}", f"{sum(cost.multiply_adds for cost in self.costs):,}"]]


def split_stages(model: nn.Module, size: int) -> StagedModel:
    """Split `model` into named stages and a head, without code per architecture.

    `model` takes float [n, 3, size, size] and returns a tensor: a network of torchvision, of timm or one's own, which
    torch.fx can trace. It stays as it is. The head is the last layer with weights and all that follows it. Stages and
    head give the output of the model in evaluation mode, to the last bit.

        split_stages(torchvision.models.resnet18(), size=224)

    Raises:
        UserError: where the forward pass cannot be traced, does not take images of this size, does not return a tensor,
            or can be split nowhere.
    """
    name, was_training = type(model).__name__, model.training
    model.eval()
    try:
        traced_model = trace_model(model)
        _check_size(model, size)
        groups, head_nodes = _separate_head(name, traced_model, group_stage_nodes(model, traced_model, size))
        stages: dict[str, nn.Module] = {stage: build_graph_module(model, nodes) for stage, nodes in groups.items()}
        try:
            staged_model = StagedModel(name, stages, build_graph_module(model, head_nodes), size)
        except AttributeError as error:
            raise _build_split_error(name, "a stage or the head does not return a single tensor") from error
        return staged_model.eval()
    finally:
        model.train(was_training)


def _check_size(model: nn.Module, size: int) -> None:
    try:
        forward_zeros(model, size)
    except Exception as error:  # MViTv2 indexes beyond its table of positions, others fail in other ways
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        problem = Problem(f"size={size}", reason, fix="the size that the network was built for")
        raise UserError(f"{type(model).__name__} does not take images of {size} pixels.", [problem]) from error


def _separate_head(
    name: str, traced_model: TracedModel, groups: dict[str, list[fx.Node]]
) -> tuple[dict[str, list[fx.Node]], list[fx.Node]]:
    """Return the nodes of the stages and those of the head.

    The last nodes of the stages move to the head where it needs more of them than their final value: a network with two
    classifiers reads two tokens.
    """
    groups = {stage: list(nodes) for stage, nodes in groups.items()}
    stage_nodes = {node for nodes in groups.values() for node in nodes}
    head_nodes = [node for node in _find_output_nodes(traced_model.classifier_node.graph) if node not in stage_nodes]
    while groups:
        last_stage = list(groups)[-1]
        if [node for node in find_external_inputs(head_nodes) if node.op != "get_attr"] == groups[last_stage][-1:]:
            return groups, head_nodes
        head_nodes.insert(0, groups[last_stage].pop())
        if not groups[last_stage]:
            del groups[last_stage]
    raise _build_split_error(name, "nowhere in its forward pass does a single tensor pass")


def _find_output_nodes(graph: fx.Graph) -> list[fx.Node]:
    """Return the output and the nodes that it depends on, in order, without the attributes that they read."""
    needed_nodes = {node for node in graph.nodes if node.op == "output"}
    for node in reversed(graph.nodes):
        if node in needed_nodes:
            needed_nodes.update(node.all_input_nodes)
    return [node for node in graph.nodes if node in needed_nodes and node.op != "get_attr"]


def _build_split_error(name: str, reason: str) -> UserError:
    fix = "a network that passes single tensors and returns a tensor"
    return UserError("the network cannot be split into stages.", [Problem(name, reason, fix=fix)])
