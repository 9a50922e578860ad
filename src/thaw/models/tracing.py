"""Trace the forward pass of a classifier into a graph, as deep as splitting it into stages needs.

The module that holds most of the layers is entered; every module below stays the library's own and is called as it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import dataclass

from torch import fx, nn

from thaw.config.errors import Problem, UserError
from thaw.models.network import count_layers

# A module with this fraction of the weight layers is a trunk and is entered. ResNet-152's layer3 has 0.70, Swin-B's
# third stage 0.75: they are not.
MIN_TRUNK_FRACTION = 0.8
# The fraction where fewer than three blocks would remain: the ViT after the ResNet of a hybrid has 0.63.
MIN_TRUNK_FRACTION_FEW_BLOCKS = 0.5


@dataclass(frozen=True)
class TracedModel:
    """The graph of a classifier's forward pass.

    `nodes` are those that the input of the last weight layer depends on, in order, without the attributes that they
    read. `classifier_node` calls that layer. `container_path` is the path of the outermost module around it that holds
    no part of the trunk: VGG's `classifier` of three layers. All nodes are in `classifier_node.graph`.
    """

    nodes: list[fx.Node]
    classifier_node: fx.Node
    container_path: str


def trace_model(model: nn.Module) -> TracedModel:
    """Trace the forward pass of `model`, which is in evaluation mode.

    Raises:
        UserError: where it depends on values that are known only when it runs, or has no layer with weights.
    """
    classifier_node = _trace_to_classifier(model)
    nodes = _find_ancestors(classifier_node)
    return TracedModel(
        [node for node in nodes if node.op != "get_attr"],
        classifier_node,
        _find_container_path(model, nodes, classifier_node),
    )


def count_weight_layers(model: nn.Module, node: fx.Node) -> int:
    """Count the weight layers in the module that `node` calls."""
    if node.op != "call_module":
        return 0
    return count_layers(model.get_submodule(str(node.target)))


def get_node_parameters(model: nn.Module, node: fx.Node) -> list[nn.Parameter]:
    """Return the parameters of the module that `node` calls, and those among its inputs, such as a class token."""
    module_parameters = model.get_submodule(str(node.target)).parameters() if node.op == "call_module" else ()
    attributes = [_get_attribute(model, operand) for operand in node.all_input_nodes if operand.op == "get_attr"]
    return [*module_parameters, *(operand for operand in attributes if isinstance(operand, nn.Parameter))]


def is_within(path: object, container_path: str) -> bool:
    """Return whether `path` is the module at `container_path` or below it."""
    return f"{path}.".startswith(f"{container_path}.")


def _get_attribute(model: nn.Module, node: fx.Node) -> object:
    owner_path, _, name = str(node.target).rpartition(".")
    return getattr(model.get_submodule(owner_path), name)


class _Tracer(fx.Tracer):
    """Enters the modules at `entered_paths` and calls all others as they are."""

    def __init__(self, entered_paths: set[str]) -> None:
        super().__init__()
        self.entered_paths = entered_paths

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name not in self.entered_paths


def _trace_to_classifier(model: nn.Module) -> fx.Node:
    """Return the node of the last weight layer, in a graph where trunk and classifier are entered."""
    entered_paths: set[str] = set()
    untraceable_paths: set[str] = set()  # cannot be traced inside
    graph = _trace(model, entered_paths)
    while True:
        last_node = _find_last_layer(model, graph)
        inner_path = _choose_module_to_enter(model, last_node, untraceable_paths)
        if inner_path is None:
            return last_node
        try:
            graph = _trace(model, entered_paths | {inner_path})
            entered_paths.add(inner_path)
        except UserError:
            untraceable_paths.add(inner_path)


def _trace(model: nn.Module, entered_paths: set[str]) -> fx.Graph:
    try:
        return _Tracer(entered_paths).trace(model, _get_default_inputs(model))
    except (fx.proxy.TraceError, TypeError, ValueError, AttributeError, RuntimeError, AssertionError) as error:
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
        problem = Problem(f"{type(model).__name__} cannot be traced", reason, fix="another backbone")
        raise UserError("the network cannot be split into stages.", [problem]) from error


def _get_default_inputs(model: nn.Module) -> dict[str, object]:
    """Return the optional inputs of the forward pass beside the images (timm's `attn_mask`) at their defaults."""
    inputs = list(inspect.signature(model.forward).parameters.values())[1:]
    return {
        optional_input.name: optional_input.default
        for optional_input in inputs
        if optional_input.default is not optional_input.empty
    }


def _find_last_layer(model: nn.Module, graph: fx.Graph) -> fx.Node:
    """Return the node of the weight layer after which no other follows.

    Where a network averages the logits of several such layers, the one with most layers before it is chosen; among
    equals (the two classifiers of a distilled network) the first, which was trained on labels.
    """
    candidates: dict[fx.Node, None] = {}
    pending = [node for node in graph.nodes if node.op == "output"]
    visited = set(pending)
    while pending:
        node = pending.pop()
        if count_weight_layers(model, node):
            candidates[node] = None
            continue
        pending += (unvisited := [candidate for candidate in node.all_input_nodes if candidate not in visited])
        visited.update(unvisited)
    if not candidates:
        problem = Problem(f"{type(model).__name__} has no layer with weights", fix="a network with a classifier")
        raise UserError("the network cannot be split into stages.", [problem])
    positions = {node: index for index, node in enumerate(graph.nodes)}
    return max(
        candidates,
        key=lambda candidate: (_count_total_weight_layers(model, _find_ancestors(candidate)), -positions[candidate]),
    )


def _find_ancestors(node: fx.Node) -> list[fx.Node]:
    """Return the first input of `node` and the nodes that it depends on, in order."""
    needed_nodes = {node.all_input_nodes[0]}
    for graph_node in reversed(node.graph.nodes):
        if graph_node in needed_nodes:
            needed_nodes.update(graph_node.all_input_nodes)
    return [graph_node for graph_node in node.graph.nodes if graph_node in needed_nodes]


def _count_total_weight_layers(model: nn.Module, nodes: Iterable[fx.Node]) -> int:
    return sum(count_weight_layers(model, node) for node in nodes)


def _choose_module_to_enter(model: nn.Module, last_node: fx.Node, untraceable_paths: set[str]) -> str | None:
    """Return the path of the next module to enter: the last, until it is one layer, then the trunk; None at the end."""
    is_composed = count_weight_layers(model, last_node) > 1 or any(
        True for _ in model.get_submodule(str(last_node.target)).children()
    )
    if is_composed and str(last_node.target) not in untraceable_paths:
        return str(last_node.target)
    nodes = _find_ancestors(last_node)
    container_path = _find_container_path(model, nodes, last_node)
    trunk_nodes = [
        node for node in nodes if count_weight_layers(model, node) and not is_within(node.target, container_path)
    ]
    num_blocks = sum(count_weight_layers(model, node) > 1 for node in trunk_nodes)
    min_fraction = MIN_TRUNK_FRACTION if num_blocks >= 3 else MIN_TRUNK_FRACTION_FEW_BLOCKS
    for node in trunk_nodes:
        is_large = count_weight_layers(model, node) >= max(
            2, min_fraction * _count_total_weight_layers(model, trunk_nodes)
        )
        if is_large and str(node.target) not in untraceable_paths:
            return str(node.target)
    return None


def _find_container_path(model: nn.Module, nodes: list[fx.Node], classifier_node: fx.Node) -> str:
    """Return the path of the outermost module around the classifier that does not hold the first layer, too."""
    first_layer_path = next((str(node.target) for node in nodes if count_weight_layers(model, node)), "")
    path_parts = str(classifier_node.target).split(".")
    paths = [".".join(path_parts[:count]) for count in range(1, len(path_parts) + 1)]
    return next((path for path in paths if not is_within(first_layer_path, path)), paths[-1])
