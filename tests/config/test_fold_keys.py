"""Folds on the command line: how many jobs a sweep has, which problems are found before any starts."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from thaw.config.compose import MAX_FOLDS, MIN_FOLDS, check_command, compose_recipe, list_fold_numbers, parse_command
from thaw.config.errors import UserError
from thaw.config.schema import Recipe
from thaw.config.validation import find_problems


def check(command: str) -> int | None:
    return check_command(parse_command(command.split())).num_jobs


def find_subjects(command: str) -> list[str]:
    with pytest.raises(UserError) as error:
        check(command)
    return [problem.subject for problem in error.value.problems]


@pytest.mark.parametrize(
    ("command", "num_jobs"),
    [
        ("-m sweep=folds folds=3 strategy=scratch,fixed seed=0,1", 12),
        ("-m sweep=folds folds=7 fold=0,6", 2),
    ],
)
def test_a_sweep_has_a_job_for_each_fold_and_other_value(command: str, num_jobs: int) -> None:
    assert check(command) == num_jobs


@pytest.mark.parametrize(
    ("command", "subjects"),
    [
        ("-m sweep=folds folds=1 trainer.epochs=0", ["folds=1", "trainer.epochs=0"]),
        ("-m sweep=folds folds=1000000000", ["folds=1000000000"]),
        ("-m sweep=folds folds=null trainer.epochs=0", ["folds=null", "trainer.epochs=0"]),
        ("-m sweep=folds folds=3,5 trainer.epochs=0", ["folds=3,5", "trainer.epochs=0"]),
        ("-m sweep=folds folds=3 fold=0,3,7", ["fold=3", "fold=7"]),
        ("fold=2", ["fold=2 without folds"]),
        ("folds=many fold=2", ["folds=many"]),
        ("folds=2 fold=2 trainer.epochs=0", ["fold=2", "trainer.epochs=0"]),
        ("-m sweep=search folds=5 fold=0,1 seed=0,1", ["fold=0,1", "seed=0,1"]),
        (
            "folds=5 fold=0 dataset=folder dataset.root=. dataset.per_class=3",
            ["folds=5 and dataset.per_class=3 both say which images are tested"],
        ),
    ],
)
def test_wrong_folds_are_a_problem_before_anything_starts(command: str, subjects: Sequence[str]) -> None:
    assert sorted(find_subjects(command)) == sorted(subjects)


def test_the_fix_of_folds_without_a_fold_is_the_sweep() -> None:
    with pytest.raises(UserError, match=r"-m sweep=folds folds=4 trains all, fold=0 one of them"):
        check("folds=4")


def test_a_search_within_one_fold_is_possible() -> None:
    assert check("-m sweep=search folds=5 fold=0") == 30


def test_a_recipe_for_a_probe_needs_no_fold() -> None:
    recipe = compose_recipe(["folds=5"])
    assert (recipe.folds, recipe.fold) == (5, None)


@pytest.mark.parametrize("folds", [MIN_FOLDS - 1, MIN_FOLDS, MAX_FOLDS, MAX_FOLDS + 1, True, 3.0, "5", None])
def test_the_preset_lists_folds_exactly_if_the_schema_accepts_their_number(folds: object) -> None:
    values = Recipe.model_validate(compose_recipe([]).to_dict()).to_dict() | {"folds": folds, "fold": None}
    is_valid = folds is not None and not find_problems(values)
    assert list_fold_numbers(folds) == (f"range(0,{folds})" if is_valid else "0")
