"""What each strategy file, found by globbing, trains and what it leaves unchanged."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.conftest import ROOT, TINY, get_only_run
from thaw.cli.train import launch
from thaw.config.schema import Recipe
from thaw.models.factory import build_network, load_seeded_pretrained
from thaw.models.network import Network, select_parameters
from thaw.runs.run import Run
from thaw.system.cache_folder import resolve_cache_dir

STRATEGIES = sorted(path.stem for path in (ROOT / "conf" / "strategy").glob("*.yaml"))
RECIPE = (
    *(override for override in TINY if not override.startswith("trainer.epochs")),
    "trainer.epochs=3",
    "scheduler=constant",
)
DECAY = 0.02
Runs = Callable[[str], tuple[Path, str]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """The run of each strategy and its output."""

    @cache
    def train(strategy: str) -> tuple[Path, str]:
        outputs, stream = tmp_path_factory.mktemp(strategy), io.StringIO()
        recipe = [*RECIPE, f"strategy={strategy}", f"optimizer.weight_decay={DECAY}"]
        with redirect_stdout(stream):
            assert launch([*recipe, f"output_dir={outputs}"]) == 0
        return get_only_run(outputs), stream.getvalue()

    return train


def read_plan(run: Path) -> list[dict[str, Any]]:
    plan: list[dict[str, Any]] = json.loads((run / "run.json").read_text())["plan"]
    return plan


def build_initial_network(run: Path) -> Network:
    metadata = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["thaw"]
    recipe = Recipe.model_validate(metadata["recipe"])
    is_random = recipe.strategy.init == "random"
    pretrained = load_seeded_pretrained(recipe.backbone, is_random, recipe.seed, resolve_cache_dir(None), None)
    preprocessing = pretrained.preprocessing.with_size(recipe.dataset.image_size, recipe.dataset.crop)
    return build_network(pretrained, recipe.head, metadata["classes"], preprocessing)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_frozen_tensors_stay_the_same_and_trained_tensors_change(strategy: str, runs: Runs) -> None:
    run, _ = runs(strategy)
    before = build_initial_network(run)
    after = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    names = {id(value): name for name, value in before.named_parameters()}
    parts = [part for phase in read_plan(run) for part in phase["parts"]]
    trained_names = {
        names[id(value)]
        for part in parts
        if part["trainable"]
        for value in select_parameters(before.get_part(part["name"]), part["parameters"])
    }
    updated_parts = {part["name"] for part in parts if part["batchnorm"] != "eval"}
    for name, value in before.named_parameters():
        assert torch.equal(value, after[f"network.{name}"]) == (name not in trained_names), name
    for name, value in before.named_buffers():
        assert torch.equal(value, after[f"network.{name}"]) == (name.split(".")[1] not in updated_parts), name


def parse_plan(text: str) -> list[dict[str, list[str]]]:
    """Return the table of each phase, by stage; later tables list only the stages that differ from the phase before."""
    phases: list[dict[str, list[str]]] = []
    for block in re.split(r"^phase .*$", text, flags=re.MULTILINE)[1:]:
        rows = [line.split() for line in block.splitlines()]
        cells = {row[0]: row[-4:] for row in rows if row and row[-1] in ("train", "statistics", "eval")}
        phases.append({**(phases[-1] if phases else {}), **cells})
    return phases


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_optimizer_follows_the_printed_table(strategy: str, runs: Runs) -> None:
    run, output = runs(strategy)
    tables = parse_plan(output)
    assert len(tables) == len(read_plan(run))
    assert not re.search(r"^phase .* $", output, flags=re.MULTILINE)
    for row in Run(run).read_history():
        index = next(position for position, phase in enumerate(read_plan(run)) if int(row["epoch"]) <= phase["end"])
        for stage, (trains, rate, _, _) in tables[index].items():
            assert float(row[f"lr_{stage}"]) == pytest.approx(0.0 if trains == "frozen" else float(rate), rel=0.01)
    groups = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"][0]["param_groups"]
    trained_stages = {stage for table in tables for stage, (trains, *_) in table.items() if trains != "frozen"}
    assert {group["part"] for group in groups} == trained_stages, "all groups exist from the start"
    for group in groups:
        trains, rate, decay, _ = tables[-1][group["part"]]
        assert group["lr"] == pytest.approx(0.0 if trains == "frozen" else float(rate), rel=0.01)
        assert group["weight_decay"] == (float(decay) if trains != "frozen" and group["decays"] else 0.0)


def select_statistics(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value for name, value in network.state_dict().items() if "running" in name}


@pytest.mark.parametrize("policy", ["eval", "statistics", "train"])
def test_batchnorm_of_a_frozen_stage_follows_its_policy(policy: str, tmp_path: Path) -> None:
    policy_override = f"strategy.phases.head.batchnorm={{block7: {policy}}}"
    rate_override = "strategy.phases.head.learning_rate={all: 1.0}"
    assert launch([*TINY, "strategy=fixed", policy_override, rate_override, f"output_dir={tmp_path}"]) == 0
    run = get_only_run(tmp_path)
    before = build_initial_network(run).stages["block7"]
    after = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    norms = {id(value) for value in select_parameters(before, "norms")}
    for name, value in before.named_parameters():
        has_changed = not torch.equal(value, after[f"network.stages.block7.{name}"])
        assert has_changed == (policy == "train" and id(value) in norms), name
    for name, value in select_statistics(before).items():
        assert torch.equal(value, after[f"network.stages.block7.{name}"]) == (policy == "eval"), name


def test_batchnorm_of_a_trained_stage_can_keep_the_pretrained_statistics(tmp_path: Path) -> None:
    assert launch([*TINY, "strategy.phases.all.batchnorm={all: eval}", f"output_dir={tmp_path}"]) == 0
    run = get_only_run(tmp_path)
    before = build_initial_network(run)
    after = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(value, after[f"network.{name}"]) for name, value in select_statistics(before).items())
    assert not any(torch.equal(value, after[f"network.{name}"]) for name, value in before.named_parameters())


def test_l2_sp_keeps_weights_closer_to_the_pretrained_ones(tmp_path: Path) -> None:
    def train_and_measure(strength: float) -> float:
        outputs = tmp_path / str(strength)
        recipe = [*RECIPE, "strategy=l2_sp", f"strategy.l2_sp={strength}", "optimizer=sgd"]
        assert launch([*recipe, f"output_dir={outputs}"]) == 0
        run = get_only_run(outputs)
        after = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        backbone = build_initial_network(run).stages
        distances = [(after[f"network.stages.{name}"] - value).norm() for name, value in backbone.named_parameters()]
        return torch.stack(distances).norm().item()

    assert train_and_measure(10.0) < 0.7 * train_and_measure(1e-6)


def test_l2_sp_adds_the_gradient_of_half_its_strength_times_the_squared_distance() -> None:
    from thaw.training.l2_sp import L2SPRegularizer

    torch.manual_seed(0)
    layer = nn.Linear(3, 2)
    regularizer = L2SPRegularizer(dict(layer.named_parameters()), 0.3)
    pretrained = [value.detach().clone() for value in layer.parameters()]
    with torch.no_grad():
        layer.weight.add_(1.0)
    layer.weight.grad = torch.zeros_like(layer.weight)  # the bias is frozen and has none
    regularizer.add_to_gradients()
    weight = layer.weight.detach().clone().requires_grad_()
    (0.3 / 2 * (weight - pretrained[0]).square().sum()).backward()
    assert torch.allclose(layer.weight.grad, weight.grad)
    assert layer.bias.grad is None


def test_a_restarted_optimizer_forgets_the_phase_before(tmp_path: Path) -> None:
    """Adam counts the steps of each parameter: after the restart, only those of the last phase."""
    recipe = [*RECIPE, "strategy=lp_ft", "strategy.phases.probe.fraction=0.34"]
    assert launch([*recipe, f"output_dir={tmp_path}"]) == 0
    state = torch.load(get_only_run(tmp_path) / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"][0][
        "state"
    ]
    per_epoch = 36 // 8 + 1
    assert {int(override["step"]) for override in state.values()} == {2 * per_epoch}
