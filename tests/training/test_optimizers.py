"""From the recipe's optimizer to one that steps: torch's own, and a class of the user's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import TINY, only_run
from thaw.cli.train import launch
from thaw.config.catalog import list_optimizer_files, read_optimizer_arguments
from thaw.config.errors import UserError
from thaw.config.optimizer_rules import UNSUPPORTED_OPTIMIZERS
from thaw.config.schema import OptimizerConfig
from thaw.training.optimizers import build_optimizer

FIT = [name for name in list_optimizer_files() if name not in UNSUPPORTED_OPTIMIZERS]
MINE = """
import torch

class Signs(torch.optim.Optimizer):
    def __init__(self, params, lr, strength=1.0, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "strength": strength, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for one in group["params"]:
                if one.grad is not None:
                    one -= group["lr"] * group["strength"] * one.grad.sign()
        return loss

class Demanding(Signs):
    def __init__(self, params, lr, memory):
        super().__init__(params, lr)

class Choosy(Signs):
    def __init__(self, params, lr, **others):
        raise ValueError("it takes nothing at all")

class Rateless(Signs):
    def __init__(self, params, weight_decay=0.0):
        super().__init__(params, 1.0)

class NoOptimizer:
    pass
"""


def recipe(name: str, weight_decay: float = 0.0, **arguments: Any) -> OptimizerConfig:
    return OptimizerConfig(
        name=name, learning_rate=0.1, weight_decay=weight_decay, decay_norms_and_biases=False, arguments=arguments
    )


def groups() -> list[dict[str, Any]]:
    """Two parameters in a group each, with gradients, as parameter_groups makes them."""
    torch.manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in ((3, 2), (3,))]
    for one in parameters:
        one.grad = torch.randn_like(one)
    return [
        {"params": [one], "part": part, "decays": one.ndim > 1, "lr": 1.0, "weight_decay": 0.0}
        for part, one in zip(("stem", "head"), parameters, strict=True)
    ]


def stepped(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """The parameters after three steps at rates 0.1 and 0.01, with a weight decay where the optimizer knows one."""
    for group, rate in zip(optimizer.param_groups, (0.1, 0.01), strict=True):
        group["lr"] = rate
        group["weight_decay"] = 0.3 * group.get("decays", group["params"][0].ndim > 1)
    for _ in range(3):
        optimizer.step()
    return [one.detach() for group in optimizer.param_groups for one in group["params"]]


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("name", FIT)
def test_every_optimizer_of_torch_steps_as_it_does_alone(name: str, fused: bool) -> None:
    plain = getattr(torch.optim, name)([{"params": group["params"]} for group in groups()], lr=1.0)
    ours = build_optimizer(recipe(name.upper()), groups(), fused)
    assert type(ours) is getattr(torch.optim, name)
    assert [group["part"] for group in ours.param_groups] == ["stem", "head"]
    for one, other in zip(stepped(ours), stepped(plain), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", FIT)
def test_fused_is_passed_where_it_is_wanted_and_taken(name: str) -> None:
    takes = "fused" in read_optimizer_arguments(name)
    assert build_optimizer(recipe(name), groups(), fused=True).defaults.get("fused") == (True if takes else None)
    assert build_optimizer(recipe(name), groups(), fused=False).defaults.get("fused") is None


@pytest.mark.parametrize(("name", "reason"), [("Muon", "2D"), ("SparseAdam", "gradient"), ("LBFGS", "group")])
def test_what_is_refused_cannot_train(name: str, reason: str) -> None:
    with pytest.raises((ValueError, RuntimeError), match=reason):
        getattr(torch.optim, name)(groups()).step()


def test_arguments_reach_the_constructor_with_lists_as_tuples() -> None:
    built = build_optimizer(recipe("adamw", betas=[0.8, 0.9], amsgrad=True), groups(), fused=False)
    assert all(group["betas"] == (0.8, 0.9) and group["amsgrad"] for group in built.param_groups)


@pytest.mark.parametrize(
    ("optimizer", "told"),
    [
        (recipe("sgd", momentum=-1.0), "Invalid momentum value: -1.0"),
        (recipe("adam", betas=[0.9, 1.0]), "Invalid beta parameter"),
        (recipe("mine_of_the_test.Sings"), "optimizer.name=mine_of_the_test.Signs"),
        (recipe("mine_of_the_test.NoOptimizer"), "NoOptimizer extends no Optimizer"),
        (recipe("mine_of_the_test.deeper.Signs"), "No module named 'mine_of_the_test.deeper'"),
        (recipe("broken_of_the_test.Signs"), "broken_of_the_test.py, line 1"),
        (recipe("mine_of_the_test.Signs", strenght=2.0), "optimizer.arguments.strength=2.0"),
        (recipe("mine_of_the_test.Demanding"), "optimizer.arguments.memory=VALUE"),
        (recipe("mine_of_the_test.Demanding", weight_decay=0.1, memory=1), "optimizer.weight_decay=0.0"),
        (recipe("mine_of_the_test.Rateless"), "takes no lr"),
        (recipe("mine_of_the_test.Choosy", any_name=1), "it takes nothing at all"),
    ],
    ids=str,
)
def test_what_the_class_alone_can_tell_is_a_fault_of_the_user(
    optimizer: OptimizerConfig, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_folder_of_mine(tmp_path, monkeypatch)
    with pytest.raises(UserError) as raised:
        build_optimizer(optimizer, groups(), fused=True)
    assert told in str(raised.value)


def in_folder_of_mine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "mine_of_the_test.py").write_text(MINE)
    (folder / "broken_of_the_test.py").write_text("class Signs(:\n")
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.path", list(sys.path))
    monkeypatch.delitem(sys.modules, "mine_of_the_test", raising=False)


def test_a_class_beside_the_command_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_folder_of_mine(tmp_path, monkeypatch)
    mine = ("optimizer=torch", "optimizer.name=mine_of_the_test.Signs", "optimizer.arguments={strength: 0.5}")
    assert launch([*TINY, *mine, "trainer.epochs=1", "output_dir=outputs"]) == 0
    checkpoint = torch.load(only_run(tmp_path / "outputs") / "checkpoints" / "last.ckpt", weights_only=True)
    assert {group["strength"] for group in checkpoint["optimizer_states"][0]["param_groups"]} == {0.5}


def test_a_value_that_torch_refuses_ends_the_run_with_torchs_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = ("optimizer=sgd", "optimizer.arguments.momentum=-0.5", "trainer.epochs=1")
    assert launch([*TINY, *wrong, f"output_dir={tmp_path}"]) == 2
    said = capsys.readouterr().err
    assert "Invalid momentum value: -0.5" in said
    assert "Traceback" not in said
