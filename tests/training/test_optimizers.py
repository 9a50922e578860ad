"""Building the optimizer of a recipe: torch's optimizers and classes of the user."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import TINY, get_only_run
from thaw.cli.train import launch
from thaw.config.catalog import list_optimizer_files, read_optimizer_arguments
from thaw.config.errors import UserError
from thaw.config.optimizer_rules import UNSUPPORTED_OPTIMIZERS
from thaw.config.schema import OptimizerConfig
from thaw.training.optimizers import build_optimizer

FIT = [name for name in list_optimizer_files() if name not in UNSUPPORTED_OPTIMIZERS]
USER_MODULE = """
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
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter -= group["lr"] * group["strength"] * parameter.grad.sign()
        return loss

class Demanding(Signs):
    def __init__(self, params, lr, memory):
        super().__init__(params, lr)

class Rejecting(Signs):
    def __init__(self, params, lr, **others):
        raise ValueError("it rejects everything")

class Rateless(Signs):
    def __init__(self, params, weight_decay=0.0):
        super().__init__(params, 1.0)

class NoOptimizer:
    pass
"""


def build_config(name: str, weight_decay: float = 0.0, **arguments: Any) -> OptimizerConfig:
    return OptimizerConfig(
        name=name, learning_rate=0.1, weight_decay=weight_decay, decay_norms_and_biases=False, arguments=arguments
    )


def build_groups() -> list[dict[str, Any]]:
    """Build two groups with a parameter each, with gradients, like parameter_groups does."""
    torch.manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in ((3, 2), (3,))]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    return [
        {"params": [parameter], "part": part, "decays": parameter.ndim > 1, "lr": 1.0, "weight_decay": 0.0}
        for part, parameter in zip(("stem", "head"), parameters, strict=True)
    ]


def take_steps(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """Return the parameters after three steps at rates 0.1 and 0.01, with weight decay if the optimizer has it."""
    for group, rate in zip(optimizer.param_groups, (0.1, 0.01), strict=True):
        group["lr"] = rate
        group["weight_decay"] = 0.3 * group.get("decays", group["params"][0].ndim > 1)
    for _ in range(3):
        optimizer.step()
    return [parameter.detach() for group in optimizer.param_groups for parameter in group["params"]]


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("name", FIT)
def test_every_torch_optimizer_steps_as_it_does_without_thaw(name: str, fused: bool) -> None:
    expected = getattr(torch.optim, name)([{"params": group["params"]} for group in build_groups()], lr=1.0)
    optimizer = build_optimizer(build_config(name.upper()), build_groups(), fused)
    assert type(optimizer) is getattr(torch.optim, name)
    assert [group["part"] for group in optimizer.param_groups] == ["stem", "head"]
    for weights, expected_weights in zip(take_steps(optimizer), take_steps(expected), strict=True):
        torch.testing.assert_close(weights, expected_weights)


@pytest.mark.parametrize("name", FIT)
def test_fused_is_passed_if_requested_and_supported(name: str) -> None:
    has_fused = "fused" in read_optimizer_arguments(name)
    assert build_optimizer(build_config(name), build_groups(), fused=True).defaults.get("fused") == (
        True if has_fused else None
    )
    assert build_optimizer(build_config(name), build_groups(), fused=False).defaults.get("fused") is None


@pytest.mark.parametrize(("name", "reason"), [("Muon", "2D"), ("SparseAdam", "gradient"), ("LBFGS", "group")])
def test_unsupported_optimizers_cannot_train(name: str, reason: str) -> None:
    with pytest.raises((ValueError, RuntimeError), match=reason):
        getattr(torch.optim, name)(build_groups()).step()


def test_arguments_reach_the_constructor_with_lists_as_tuples() -> None:
    optimizer = build_optimizer(build_config("adamw", betas=[0.8, 0.9], amsgrad=True), build_groups(), fused=False)
    assert all(group["betas"] == (0.8, 0.9) and group["amsgrad"] for group in optimizer.param_groups)


@pytest.mark.parametrize(
    ("optimizer", "expected_text"),
    [
        (build_config("sgd", momentum=-1.0), "Invalid momentum value: -1.0"),
        (build_config("adam", betas=[0.9, 1.0]), "Invalid beta parameter"),
        (build_config("user_module.Sings"), "optimizer.name=user_module.Signs"),
        (build_config("user_module.NoOptimizer"), "NoOptimizer is not a subclass"),
        (build_config("user_module.deeper.Signs"), "No module named 'user_module.deeper'"),
        (build_config("broken_module.Signs"), "broken_module.py, line 1"),
        (build_config("user_module.Signs", strenght=2.0), "optimizer.arguments.strength=2.0"),
        (build_config("user_module.Demanding"), "optimizer.arguments.memory=VALUE"),
        (build_config("user_module.Demanding", weight_decay=0.1, memory=1), "optimizer.weight_decay=0.0"),
        (build_config("user_module.Rateless"), "has no parameter lr"),
        (build_config("user_module.Rejecting", any_name=1), "it rejects everything"),
    ],
    ids=str,
)
def test_errors_of_the_optimizer_class_are_user_errors(
    optimizer: OptimizerConfig, expected_text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_user_modules(tmp_path, monkeypatch)
    with pytest.raises(UserError) as error_info:
        build_optimizer(optimizer, build_groups(), fused=True)
    assert expected_text in str(error_info.value)


def write_user_modules(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "user_module.py").write_text(USER_MODULE)
    (folder / "broken_module.py").write_text("class Signs(:\n")
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.path", list(sys.path))
    monkeypatch.delitem(sys.modules, "user_module", raising=False)


def test_a_class_in_the_working_directory_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_user_modules(tmp_path, monkeypatch)
    overrides = ("optimizer=torch", "optimizer.name=user_module.Signs", "optimizer.arguments={strength: 0.5}")
    assert launch([*TINY, *overrides, "trainer.epochs=1", "output_dir=outputs"]) == 0
    checkpoint = torch.load(get_only_run(tmp_path / "outputs") / "checkpoints" / "last.ckpt", weights_only=True)
    assert {group["strength"] for group in checkpoint["optimizer_states"][0]["param_groups"]} == {0.5}


def test_a_value_that_torch_rejects_ends_the_run_with_the_message_of_torch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ("optimizer=sgd", "optimizer.arguments.momentum=-0.5", "trainer.epochs=1")
    assert launch([*TINY, *overrides, f"output_dir={tmp_path}"]) == 2
    errors = capsys.readouterr().err
    assert "Invalid momentum value: -0.5" in errors
    assert "Traceback" not in errors
