"""Selectors of stages."""

import pytest

from thaw.config.errors import UserError
from thaw.strategy.selection import select_parts

PARTS = ["stem", "layer1", "layer2", "layer3", "layer4", "head"]


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("all", PARTS),
        ("head", ["head"]),
        ("backbone", PARTS[:-1]),
        ("first:1", ["stem"]),
        ("first:2", ["stem", "layer1"]),
        ("first:5", PARTS[:-1]),
        ("last:1", ["layer4"]),
        ("last:2", ["layer3", "layer4"]),
        ("last:5", PARTS[:-1]),
        ("first:50%", ["stem", "layer1"]),  # 2.5 stages
        ("last:40%", ["layer3", "layer4"]),
        ("last:1%", ["layer4"]),  # at least one stage
        ("last:100%", PARTS[:-1]),
        ("from:layer3", ["layer3", "layer4"]),
        ("to:layer1", ["stem", "layer1"]),
        ("layer3", ["layer3"]),
        ("layer*", ["layer1", "layer2", "layer3", "layer4"]),
        ("layer[12]", ["layer1", "layer2"]),
        ("*e*", ["stem", "layer1", "layer2", "layer3", "layer4", "head"]),
    ],
)
def test_a_selector_selects_parts_from_input_to_output(selector: str, expected: list[str]) -> None:
    assert select_parts(selector, PARTS) == expected


@pytest.mark.parametrize(
    "selector",
    [
        "layer5",
        "first:0",
        "first:6",
        "last:-1",
        "last:",
        "last:two",
        "middle:1",
        "first:0%",
        "last:101%",
        "from:layer5",
        "from:",
        "to:head",
        "Head",
        "block*",
        "",
    ],
)
def test_an_unknown_selector_lists_the_stages(selector: str) -> None:
    with pytest.raises(UserError) as error_info:
        select_parts(selector, PARTS)
    (problem,) = error_info.value.problems
    assert problem.got == selector
    for valid in (*PARTS, "all", "backbone", "first:1 .. last:5"):
        assert valid in problem.valid


@pytest.mark.parametrize(
    ("selector", "closest"),
    [("layer44", "layer4"), ("Head", "head"), ("backbon", "backbone"), ("from:layr3", "from:layer3")],
)
def test_a_mistyped_selector_suggests_the_closest(selector: str, closest: str) -> None:
    with pytest.raises(UserError) as error_info:
        select_parts(selector, PARTS)
    assert error_info.value.problems[0].fix == closest
