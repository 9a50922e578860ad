"""What a recipe needs for a probe, as far as it is known before the data are read. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator

from thaw.config.errors import Problem, UserError
from thaw.config.schema import CaptchaDatasetConfig, FolderDatasetConfig, Recipe


def check_validation_images(recipe: Recipe) -> None:
    """Check that the recipe has validation images, on which a probe chooses.

    Raises:
        UserError: if it has none.
    """
    if problems := [*_find_validation_problems(recipe)]:
        raise UserError("a probe chooses on validation images.", problems)


def _find_validation_problems(recipe: Recipe) -> Iterator[Problem]:
    dataset = recipe.dataset
    if isinstance(dataset, CaptchaDatasetConfig):
        if dataset.val == 0:
            yield Problem("dataset.val=0", "no validation images", fix="dataset.val=10")
    elif dataset.fractions.val == 0 and (
        dataset.splits.val if isinstance(dataset, FolderDatasetConfig) else dataset.split_column
    ):
        return  # the data set has a validation split of its own
    elif dataset.fractions.val == 0:
        yield Problem("dataset.fractions.val=0", "no validation images", fix="dataset.fractions.val=0.15")
