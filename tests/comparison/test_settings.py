"""The keys that distinguish runs: those that differ and do not follow from the name of a group."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.comparison.records import build_recipe
from thaw.comparison.records import EMPTY_PREDICTIONS, RunResults
from thaw.comparison.settings import (
    ABSENT,
    build_labels,
    extract_settings,
    find_differing_keys,
    format_value,
    get_value,
)


def list_differing_keys(*recipes: dict[str, Any]) -> list[str]:
    return [".".join(key) for key in find_differing_keys(recipes)]


def build_settings(*overrides: str, probe_grid: dict[str, Any] | None = None) -> dict[str, Any]:
    record = {"probe": {"grid": probe_grid}} if probe_grid is not None else {}
    recipe = build_recipe(*overrides)
    return extract_settings(RunResults(Path(), "done", "", record, recipe, {}, [], EMPTY_PREDICTIONS))


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
def test_keys_that_differ_are_listed(first: list[str], second: list[str], keys: list[str]) -> None:
    assert list_differing_keys(build_settings(*first), build_settings(*second)) == keys


def test_a_key_that_differs_under_one_name_is_no_consequence_of_names() -> None:
    rates = [
        build_settings("optimizer=sgd"),
        build_settings("optimizer=adam"),
        build_settings("optimizer=adam", "optimizer.learning_rate=0.5"),
    ]
    assert list_differing_keys(*rates[:2]) == ["optimizer"]
    assert list_differing_keys(*rates) == ["optimizer", "optimizer.learning_rate"]


def test_a_probe_differs_from_a_training_with_the_same_recipe() -> None:
    training, probe = (
        build_settings("strategy=fixed", "optimizer=sgd"),
        build_settings("strategy=fixed", probe_grid={"epochs": 30}),
    )
    assert list_differing_keys(training, probe) == ["run"]
    assert list_differing_keys(probe, build_settings("strategy=fixed", probe_grid={"epochs": 10})) == ["heads.epochs"]


def test_a_run_without_a_recipe_is_ignored() -> None:
    assert list_differing_keys({}, build_settings(), {}) == []


def test_a_missing_phase_is_a_difference() -> None:
    whole, half = build_settings("strategy=lp_ft"), build_settings("strategy=lp_ft")
    half["strategy"]["phases"].pop("probe")
    assert list_differing_keys(whole, half) == ["strategy.phases.probe"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e-05, "1e-05"), (0.1234567, "0.1234567"), (True, "true"), (None, "none"), (ABSENT, "-"), ([1, 2.5], "1 2.5")],
)
def test_values_are_shown_as_they_are_typed(value: Any, text: str) -> None:
    assert format_value(value) == text


def test_a_group_is_shown_by_its_name() -> None:
    assert get_value(build_settings("strategy=fixed"), ("strategy",)) == "fixed"
    assert get_value(build_settings(), ("heads", "epochs")) is ABSENT


def test_labels_name_the_key_if_the_value_alone_is_ambiguous() -> None:
    keys = [("strategy",), ("optimizer", "weight_decay"), ("strategy", "weight_decay")]
    assert build_labels(keys, [("fixed", "0.1", "-")]) == ["fixed · optimizer.weight_decay 0.1"]
    assert build_labels(keys[:1], [("fixed",), ("scratch",)]) == ["fixed", "scratch"]
    assert build_labels([("optimizer", "learning_rate")], [("0.1",)]) == ["0.1"]
    assert build_labels([], [()]) == ["all runs"]
