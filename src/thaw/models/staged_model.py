"""Split any network into named stages and a head that give its output when they run one after another."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx, nn

from thaw.config.errors import Problem, UserError
from thaw.models.cost import StageCost, compute_part_costs
from thaw.models.network import HEAD, forward_zeros
from thaw.models.stages import build_graph_module, find_external_inputs, group_stage_nodes
from thaw.models.tracing import TracedModel, trace_model
from thaw.system.tables import build_data_frame, render_html_table, render_text_table

HEADINGS = ("stage", "output", "parameters", "multiply-adds")


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
        return f"{self._describe()}\n{render_text_table(HEADINGS, self._format_rows(), num_left_columns=2)}"

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
    except (RuntimeError, AssertionError, ValueError) as error:
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
