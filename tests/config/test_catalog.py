"""Names read from the source of the libraries are those that the libraries register."""

import inspect
from typing import Any

import pytest
import timm
import torch
import torchvision

from thaw.config.catalog import (
    describe_argument_type,
    is_module_importable,
    is_valid_value,
    list_backbones,
    list_optimizer_files,
    parse_constructor_arguments,
    read_optimizer_arguments,
    resolve_torch_optimizer,
)

OPTIMIZERS = sorted(list_optimizer_files())


def test_names_read_from_torchvisions_source_are_those_it_registers() -> None:
    assert list_backbones("torchvision") == set(torchvision.models.list_models(module=torchvision.models))


def test_names_read_from_timms_source_are_those_it_registers() -> None:
    assert list_backbones("timm") == set(timm.list_models())


def test_a_library_that_is_not_installed_has_no_names() -> None:
    assert list_backbones("no_such_library") == frozenset()


def test_optimizers_read_from_torchs_source_are_those_it_exports() -> None:
    exported_classes = {name: value for name, value in vars(torch.optim).items() if inspect.isclass(value)}
    assert set(OPTIMIZERS) == {
        name for name, value in exported_classes.items() if torch.optim.Optimizer in value.__mro__[1:]
    }


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_arguments_read_from_torchs_source_are_those_of_the_class_and_its_defaults_are_valid(name: str) -> None:
    parameters = inspect.signature(getattr(torch.optim, name)).parameters
    argument_types = read_optimizer_arguments(name)
    assert list(argument_types) == list(parameters)
    for key in parameters.keys() - {"params"}:
        assert describe_argument_type(argument_types[key]) not in ("", "anything")
        assert is_valid_value(convert_to_yaml(parameters[key].default), argument_types[key]), key


def convert_to_yaml(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def test_an_optimizer_of_torch_is_known_in_any_case_and_by_its_path() -> None:
    assert [resolve_torch_optimizer(name) for name in ("ADAMW", "rmsprop", "torch.optim.SGD")] == [
        "AdamW",
        "RMSprop",
        "SGD",
    ]
    assert [resolve_torch_optimizer(name) for name in ("Optimizer", "mine.SGD", "lr_scheduler")] == [None] * 3


SOURCE = """
class Other:
    def __init__(self, unlike: int): ...

class Mine(Other):
    def __init__(self, params, rate: float = 0.1, /, pair: "x" = None, betas: Tuple[float, float] = (0.9, 0.99), *,
                 limit: Optional[int] = None, way: Union[str, Tensor] = "", plain=3, other: Any = 0): ...
"""


@pytest.mark.parametrize(
    ("argument", "description", "valid_values", "invalid_values"),
    [
        ("rate", "number", [1, 0.5], [True, "1", None, [1.0]]),
        ("betas", "[number, number]", [[0, 0.5]], [[0.5], [0.5, 0.5, 0.5], 0.5, [0.5, True]]),
        ("limit", "integer or null", [3, None], [3.0, True, "3"]),
        ("way", "text", ["up", ""], [None, 1]),
        ("plain", "integer", [3], [0.5]),
        ("other", "anything", [{}, None, "a"], []),
    ],
)
def test_old_and_new_annotations_decide_which_values_are_valid(
    argument: str, description: str, valid_values: list[Any], invalid_values: list[Any]
) -> None:
    argument_type = parse_constructor_arguments(SOURCE, "Mine")[argument]
    assert describe_argument_type(argument_type) == description
    assert all(is_valid_value(value, argument_type) for value in valid_values)
    assert not any(is_valid_value(value, argument_type) for value in invalid_values)


def test_a_module_in_the_working_directory_is_importable(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "module_of_the_user.py").write_text("raise RuntimeError('it must not be imported')")
    assert not is_module_importable("module_of_the_user.Mine")
    monkeypatch.chdir(tmp_path)
    assert is_module_importable("module_of_the_user.Mine")
    assert is_module_importable("timm.optim.Lion")
    assert not is_module_importable("no_such_module.Mine")
