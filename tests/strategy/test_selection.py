import pytest

from thaw.config.errors import UserError
from thaw.strategy.selection import select_parts

PARTS = ["stem", "layer1", "layer2", "layer3", "layer4", "head"]


@pytest.mark.parametrize(
    ("selector", "meant"),
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
        ("last:1%", ["layer4"]),  # a stage at least
        ("last:100%", PARTS[:-1]),
        ("from:layer3", ["layer3", "layer4"]),
        ("to:layer1", ["stem", "layer1"]),
        ("layer3", ["layer3"]),
        ("layer*", ["layer1", "layer2", "layer3", "layer4"]),
        ("layer[12]", ["layer1", "layer2"]),
        ("*e*", ["stem", "layer1", "layer2", "layer3", "layer4", "head"]),
    ],
)
def test_a_word_selects_parts_from_input_to_output(selector: str, meant: list[str]) -> None:
    assert select_parts(selector, PARTS) == meant


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
def test_a_word_without_meaning_lists_the_stages(selector: str) -> None:
    with pytest.raises(UserError) as told:
        select_parts(selector, PARTS)
    (fault,) = told.value.problems
    assert fault.got == selector
    for valid in (*PARTS, "all", "backbone", "first:1 .. last:5"):
        assert valid in fault.valid


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("layer44", "layer4"), ("Head", "head"), ("backbon", "backbone"), ("from:layr3", "from:layer3")],
)
def test_a_mistyped_word_names_the_nearest(typed: str, meant: str) -> None:
    with pytest.raises(UserError) as told:
        select_parts(typed, PARTS)
    assert told.value.problems[0].fix == meant
