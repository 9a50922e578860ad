"""A classifier -> the graph of its forward pass, entered as deep as cutting it into stages asks for.

Whatever holds most of the depth is entered, everything below stays the library's own module, called as it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import dataclass

from torch import fx, nn

from thaw.config.faults import Fault, UserFault

DOMINANT = 0.8  # of the weight layers: a trunk to enter. ResNet-152's layer3 has 0.70, Swin-B's third stage 0.75
LARGE = 0.5  # the same where fewer than three blocks would be left: the ViT behind the ResNet of a hybrid has 0.63


@dataclass(frozen=True)
class Traced:
    """`nodes` are what the last layer's input depends on, in order, without the attributes that they read. `classifier`
    is the last weight layer; `container` the path of the outermost module around it that holds no part of the trunk:
    VGG's `classifier` of three layers."""

    nodes: list[fx.Node]
    classifier: fx.Node
    container: str


def traced(model: nn.Module) -> Traced:
    """The forward pass of `model`, in evaluation mode.

    Raises:
        UserFault: where it depends on values that are known only when it runs.
    """
    classifier = _entered(model)
    nodes = _ancestors(classifier)
    return Traced([node for node in nodes if node.op != "get_attr"], classifier, _container(model, nodes, classifier))


def depth(model: nn.Module, node: fx.Node) -> int:
    """Weight layers in the module that `node` calls."""
    if node.op != "call_module":
        return 0
    modules = model.get_submodule(str(node.target)).modules()
    return sum(any(weight.ndim >= 2 for weight in one.parameters(recurse=False)) for one in modules)


def parameters(model: nn.Module, node: fx.Node) -> list[nn.Parameter]:
    """Those of the module that `node` calls, and those that it is given, as a class token is."""
    own = model.get_submodule(str(node.target)).parameters() if node.op == "call_module" else ()
    given = [_attribute(model, one) for one in node.all_input_nodes if one.op == "get_attr"]
    return [*own, *(one for one in given if isinstance(one, nn.Parameter))]


def within(path: object, container: str) -> bool:
    return f"{path}.".startswith(f"{container}.")


def _attribute(model: nn.Module, node: fx.Node) -> object:
    owner, _, name = str(node.target).rpartition(".")
    return getattr(model.get_submodule(owner), name)


class _Tracer(fx.Tracer):
    """Enters the modules named in `entered` and calls all others as they are."""

    def __init__(self, entered: set[str]) -> None:
        super().__init__()
        self.entered = entered

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name not in self.entered


def _entered(model: nn.Module) -> fx.Node:
    """The classifier in a graph that is entered as deep as trunk and classifier ask for."""
    entered: set[str] = set()
    sealed: set[str] = set()  # cannot be traced inside
    graph = _trace(model, entered)
    while True:
        last = _last_layer(model, graph)
        inner = _to_enter(model, last, sealed)
        if inner is None:
            return last
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
    inputs = list(inspect.signature(model.forward).parameters.values())[1:]
    return {one.name: one.default for one in inputs if one.default is not one.empty}


def _last_layer(model: nn.Module, graph: fx.Graph) -> fx.Node:
    """What is behind all other weight layers. Of several side by side, whose logits the network averages, that with
    most layers before it; of equals (a distilled network's two classifiers) the first, which learnt from labels."""
    found: dict[fx.Node, None] = {}
    waiting = [node for node in graph.nodes if node.op == "output"]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        if depth(model, node):
            found[node] = None
            continue
        waiting += (new := [one for one in node.all_input_nodes if one not in seen])
        seen.update(new)
    place = {node: index for index, node in enumerate(graph.nodes)}
    return max(found, key=lambda one: (_total(model, _ancestors(one)), -place[one]))


def _ancestors(node: fx.Node) -> list[fx.Node]:
    """What the first input of `node` depends on, and that input, in order."""
    needed = {node.all_input_nodes[0]}
    for one in reversed(node.graph.nodes):
        if one in needed:
            needed.update(one.all_input_nodes)
    return [one for one in node.graph.nodes if one in needed]


def _total(model: nn.Module, nodes: Iterable[fx.Node]) -> int:
    return sum(depth(model, node) for node in nodes)


def _to_enter(model: nn.Module, last: fx.Node, sealed: set[str]) -> str | None:
    """The path of the next module to look into: the last, until it is one layer, then the trunk."""
    composed = depth(model, last) > 1 or any(True for _ in model.get_submodule(str(last.target)).children())
    if composed and str(last.target) not in sealed:
        return str(last.target)
    nodes = _ancestors(last)
    container = _container(model, nodes, last)
    trunk = [node for node in nodes if depth(model, node) and not within(node.target, container)]
    blocks = sum(depth(model, node) > 1 for node in trunk)
    share = DOMINANT if blocks >= 3 else LARGE
    for node in trunk:
        large = depth(model, node) >= max(2, share * _total(model, trunk))
        if large and str(node.target) not in sealed:
            return str(node.target)
    return None


def _container(model: nn.Module, nodes: list[fx.Node], classifier: fx.Node) -> str:
    """The outermost module around the classifier that does not hold the first layer too, as a wrapper would."""
    first = next((str(node.target) for node in nodes if depth(model, node)), "")
    words = str(classifier.target).split(".")
    paths = [".".join(words[:count]) for count in range(1, len(words) + 1)]
    return next((path for path in paths if not within(first, path)), paths[-1])
