"""Write `report.html` of a finished run from its files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from thaw.config.errors import Problem, UserError
from thaw.data.factory import load_samples
from thaw.data.image import BrokenImageError
from thaw.inference.load import Classifier, load_checkpoint
from thaw.inference.predict import load_pixels
from thaw.models.cost import compute_stage_costs
from thaw.runs.run import Run
from thaw.visualization.reports.run import ExplainedModel, render_run_report


def check_reportable(run: Run) -> None:
    """Raise UserError if `run` lacks a file that the report needs."""
    if missing_files := run.find_missing_files():
        fix = f"thaw resume {run.directory}" if run.exists else ""
        got = f"there is no {', no '.join(missing_files)}"
        problem = Problem(str(run.directory), got, "a run directory", fix)
        raise UserError("no report without a finished run.", [problem])


def write_report(run: Run) -> Path:
    """Write `report.html` of `run` again and return its path. The test images are read from the data set of the recipe;
    if they cannot be read, the page says so.

    Raises:
        UserError: if the run has not finished, or its checkpoint cannot be used.
    """
    check_reportable(run)
    classifier = load_checkpoint(run.directory)

    def load_run_pixels(paths: Sequence[str]) -> np.ndarray:
        return _load_test_pixels(classifier, paths)

    costs = compute_stage_costs(classifier.network, classifier.preprocessing.size)
    model = ExplainedModel(classifier.network, classifier.preprocessing, classifier.classes, costs, load_run_pixels)
    run.write_report(render_run_report(run, model))
    return run.report_path


def _load_test_pixels(classifier: Classifier, paths: Sequence[str]) -> np.ndarray:
    """Raise OSError if an image cannot be read or downloaded."""
    recipe = classifier.recipe
    try:
        root = load_samples(recipe).root
        return load_pixels([root / path for path in paths], classifier.preprocessing)
    except (UserError, BrokenImageError) as error:
        raise OSError(str(error).splitlines()[0]) from error
