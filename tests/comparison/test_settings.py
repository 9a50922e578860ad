"""Only what differs becomes a column, and what follows from a name does not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.comparison.records import recipe_of
from thaw.comparison.records import EMPTY_PREDICTIONS, Record
from thaw.comparison.settings import (
    ABSENT,
    build_labels,
    extract_settings,
    find_differing_keys,
    format_value,
    get_value,
)


def keys_of(*recipes: dict[str, Any]) -> list[str]:
    return [".".join(key) for key in find_differing_keys(recipes)]


def of(*overrides: str, probe: dict[str, Any] | None = None) -> dict[str, Any]:
    about = {"probe": {"grid": probe}} if probe is not None else {}
    return extract_settings(Record(*[None] * 3, about, recipe_of(*overrides), {}, [], EMPTY_PREDICTIONS))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("first", "second", "keys"),
    [
        ([], ["seed=1", "output_dir=there", "data.cache_dir=here", "trainer.threads=1", "notes=[beware]"], []),
        ([], ["optimizer.learning_rate=0.1"], ["optimizer.learning_rate"]),
        (["strategy=scratch"], ["strategy=lp_ft"], ["strategy"]),
        (["backbone=resnet18"], ["backbone=vgg16"], ["backbone"]),
        ([], ["dataset=folder", "dataset.root=tests"], ["dataset"]),
        ([], ["augment=crop_flip"], ["augment.random_resized_crop", "augment.horizontal_flip"]),
        ([], ["trainer.early_stopping.patience=3"], ["trainer.early_stopping"]),
        (["dataset.side=64", "strategy=fixed"], [], ["dataset.side", "strategy"]),
    ],
)
def test_the_keys_that_differ(first: list[str], second: list[str], keys: list[str]) -> None:
    assert keys_of(of(*first), of(*second)) == keys


def test_a_key_that_differs_under_one_name_is_no_consequence_of_names() -> None:
    rates = [of("optimizer=sgd"), of("optimizer=adam"), of("optimizer=adam", "optimizer.learning_rate=0.5")]
    assert keys_of(*rates[:2]) == ["optimizer"]
    assert keys_of(*rates) == ["optimizer", "optimizer.learning_rate"]


def test_a_probe_is_no_training_with_the_recipe_that_it_has() -> None:
    training, probe = of("strategy=fixed", "optimizer=sgd"), of("strategy=fixed", probe={"epochs": 30})
    assert keys_of(training, probe) == ["run"]
    assert keys_of(probe, of("strategy=fixed", probe={"epochs": 10})) == ["heads.epochs"]


def test_a_run_that_has_no_recipe_has_no_part_in_the_question() -> None:
    assert keys_of({}, of(), {}) == []


def test_a_missing_phase_is_a_difference() -> None:
    whole, half = of("strategy=lp_ft"), of("strategy=lp_ft")
    half["strategy"]["phases"].pop("probe")
    assert keys_of(whole, half) == ["strategy.phases.probe"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e-05, "1e-05"), (0.1234567, "0.1234567"), (True, "true"), (None, "none"), (ABSENT, "-"), ([1, 2.5], "1 2.5")],
)
def test_values_are_shown_as_one_would_type_them(value: Any, text: str) -> None:
    assert format_value(value) == text


def test_a_group_is_shown_by_its_name() -> None:
    assert get_value(of("strategy=fixed"), ("strategy",)) == "fixed"
    assert get_value(of(), ("heads", "epochs")) is ABSENT


def test_labels_name_what_a_value_alone_does_not_tell() -> None:
    keys = [("strategy",), ("optimizer", "weight_decay"), ("strategy", "weight_decay")]
    assert build_labels(keys, [("fixed", "0.1", "-")]) == ["fixed · optimizer.weight_decay 0.1"]
    assert build_labels(keys[:1], [("fixed",), ("scratch",)]) == ["fixed", "scratch"]
    assert build_labels([("optimizer", "learning_rate")], [("0.1",)]) == ["0.1"]
    assert build_labels([], [()]) == ["all runs"]
