"""`report.html` of a run that has ended, from its files."""

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


def check_reportable(directory: Path) -> None:
    """Raises UserFault where `directory` lacks what the page is made of."""
    run = Run(directory)
    if missing := run.find_missing_files():
        fix = f"thaw resume {directory}" if run.exists else ""
        got = f"there is no {', no '.join(missing)}"
        raise UserError(
            "no report without a run that has ended.", [Problem(str(directory), got, "a run directory", fix)]
        )


def write_report(directory: Path) -> Path:
    """Writes `report.html` anew and returns its path. The test images are taken from where the recipe has them; where
    they are not to be had, the page says so.

    Raises:
        UserFault: where the run has not ended, or its checkpoint cannot be used.
    """
    check_reportable(directory)
    classifier = load_checkpoint(directory)

    def load_run_pixels(paths: Sequence[str]) -> np.ndarray:
        return _load_test_pixels(classifier, paths)

    costs = compute_stage_costs(classifier.network, classifier.preprocessing.size)
    model = ExplainedModel(classifier.network, classifier.preprocessing, classifier.classes, costs, load_run_pixels)
    run = Run(directory)
    run.write_report(render_run_report(run, model))
    return run.report_path


def _load_test_pixels(classifier: Classifier, paths: Sequence[str]) -> np.ndarray:
    """Raises OSError where an image is not to be had."""
    recipe = classifier.recipe
    try:
        root = load_samples(recipe).root
        return load_pixels([root / path for path in paths], classifier.preprocessing)
    except (UserError, BrokenImageError) as error:
        raise OSError(str(error).splitlines()[0]) from error
