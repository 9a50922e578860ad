"""Groups that file names suggest, and what to type to use them."""

from __future__ import annotations

import re
import shlex

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from tests.auditing.synthetic import SyntheticData, make_data
from thaw.auditing.group_names import GroupSuggestion, suggest_groups
from thaw.auditing.name_patterns import list_patterns, quote_override
from thaw.config.compose import compose_recipe, parse_command


@pytest.fixture(scope="module")
def data() -> SyntheticData:
    """Return 40 groups of 6 images; classes are hard to tell apart between groups."""
    return make_data(240, num_classes=4, group_size=6, group_scale=2.0, class_scale=0.5)


def suggest(data: SyntheticData, paths: list[str]) -> GroupSuggestion | None:
    return suggest_groups(paths, data.projected, data.neighbors, data.labels, data.singles)


def find_groups(pattern: str, paths: list[str]) -> np.ndarray:
    groups = [match[1] for path in paths if (match := re.search(pattern, path))]
    assert len(groups) == len(paths)
    return np.unique(groups, return_inverse=True)[1]


def is_same_partition(first: np.ndarray, second: np.ndarray) -> bool:
    return len({*zip(first.tolist(), second.tolist(), strict=True)}) == len({*first}) == len({*second})


@pytest.mark.parametrize(
    "name",
    [
        "{label}/patient{group}_{index}.png",
        "{label}/{index:03}-video{group:02}-x.png",
        "train/{label}/{group}/{index}.png",
        "{label}/{group:02}{number:03}.png",
        "{label}/frame{group}f{index}.jpg",
        "{label}/visit {group} {index}.png",
        "{label}/x_p{group}-{index}.png",
        "{label}/a.{group}.{index}.png",
    ],
)
def test_the_groups_in_names_are_suggested(data: SyntheticData, name: str) -> None:
    paths = [
        name.format(label=label, group=group + 10, index=index, number=index * 7 % 1000)
        for index, (label, group) in enumerate(data.pairs)
    ]
    suggestion = suggest(data, paths)
    assert suggestion is not None
    assert is_same_partition(find_groups(suggestion.pattern, paths), data.groups)
    assert suggestion.num_groups == 40
    assert suggestion.random_accuracy > suggestion.grouped_accuracy + 0.1
    assert suggestion.same_group > 0.8 > 0.2 > suggestion.chance
    assert all(path in paths for example in suggestion.examples for path in example.paths)
    assert "40 groups" in suggestion.describe()


def test_the_command_line_takes_the_override(data: SyntheticData) -> None:
    paths = [f"{label}/p{group} #{index}.png" for index, (label, group) in enumerate(data.pairs)]
    suggestion = suggest(data, paths)
    assert suggestion is not None
    assert compose_pattern(suggestion.override) == suggestion.pattern


def test_every_pattern_that_is_tried_survives_the_shell_and_hydra() -> None:
    paths = [f"2021-03-0{index % 3}/{index // 3}/a{index // 2:02}_v{index // 4}-x y.{index}.png" for index in range(16)]
    patterns = [candidate.pattern for candidate in list_patterns(paths)]
    overrides = parse_command(shlex.split(" ".join(map(quote_override, patterns)))).overrides
    assert [override.value() for override in OverridesParser.create().parse_overrides(list(overrides))] == patterns
    assert len(patterns) == 5


def compose_pattern(override: str) -> str | None:
    recipe = compose_recipe(["dataset=folder", "dataset.root=.", *shlex.split(override)])
    return recipe.dataset.group_pattern


def test_names_without_groups_suggest_nothing(data: SyntheticData) -> None:
    order = np.random.default_rng(0).permutation(240)
    assert suggest(data, [f"{label}/{index:04}.png" for label, index in zip(data.labels, order, strict=True)]) is None
    assert (
        suggest(data, [f"{label}/{index % 40}_{index}.png" for label, index in zip(data.labels, order, strict=True)])
        is None
    )
    assert suggest(data, [f"{label}/image.png" for label in data.labels]) is None


def test_classes_and_sources_are_no_groups(data: SyntheticData) -> None:
    assert suggest(data, [f"{label}/{label}_{index}.png" for index, label in enumerate(data.labels)]) is None


def test_a_patient_of_several_videos_is_the_group() -> None:
    """Each of 20 patients has two videos of six images; patients resemble each other less than their videos do."""
    rng = np.random.default_rng(0)
    patients, videos, labels = np.arange(240) // 12, np.arange(240) // 6, np.arange(240) // 12 % 2
    features = rng.normal(0, 2, (20, 24))[patients] + rng.normal(0, 1.5, (40, 24))[videos] + rng.normal(0, 1, (240, 24))
    data = SyntheticData((features + 4).astype(np.float32), labels, patients)
    paths = [
        f"{label}/{patient:02}_{video % 2}_{index}.png"
        for index, (label, patient, video) in enumerate(zip(labels, patients, videos, strict=True))
    ]
    suggestion = suggest(data, paths)
    assert suggestion is not None
    assert is_same_partition(find_groups(suggestion.pattern, paths), patients)


def test_a_number_that_starts_again_in_each_folder_is_a_group_of_the_folder() -> None:
    data = make_data(240, num_classes=2, group_size=6, group_scale=2.0)
    paths = [f"{label}/{group // 2}_{index}.png" for index, (label, group) in enumerate(data.pairs)]
    suggestion = suggest(data, paths)
    assert suggestion is not None
    assert is_same_partition(find_groups(suggestion.pattern, paths), data.groups)


def test_a_folder_is_not_taken_for_a_name() -> None:
    patterns = [candidate.pattern for candidate in list_patterns(["a_1/x_1.png", "a_1/x_2.png", "b_2/y_3.png"])]
    assert all(re.search(pattern, "a_1/x_1.png") for pattern in patterns)
