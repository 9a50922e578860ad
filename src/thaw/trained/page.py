"""`report.html` of a run that has ended, from its files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from thaw.analysis.looks import Subject
from thaw.config.faults import Fault, UserFault
from thaw.data.build import samples_of
from thaw.data.cache import cache_folder
from thaw.data.image import BrokenImage
from thaw.network.cost import stage_costs
from thaw.trained.prediction import squares
from thaw.trained.restore import Restored, restored
from thaw.training.files import write_text
from thaw.training.run import RECORD
from thaw.training.run_report import run_page

NEEDED = (RECORD, "config.yaml", "metrics.json", "predictions.csv", "checkpoints/best.ckpt")


def check_reportable(directory: Path) -> None:
    """Raises UserFault where `directory` lacks what the page is made of."""
    missing = [name for name in NEEDED if not (directory / name).is_file()]
    if missing:
        is_run = (directory / "config.yaml").is_file()
        fix = f"thaw resume {directory}" if is_run else ""
        got = f"there is no {', no '.join(missing)}"
        raise UserFault("no report without a run that has ended.", [Fault(str(directory), got, "a run directory", fix)])


def write_page(directory: Path) -> Path:
    """Writes `report.html` anew and returns its path. The test images are taken from where the recipe has them; where
    they are not to be had, the page says so.

    Raises:
        UserFault: where the run has not ended, or its checkpoint cannot be used.
    """
    check_reportable(directory)
    trained = restored(directory)

    def pixels(paths: Sequence[str]) -> np.ndarray:
        return _pixels(trained, paths)

    costs = stage_costs(trained.network, trained.preprocessing.size)
    subject = Subject(trained.network, trained.preprocessing, trained.classes, costs, pixels)
    page = directory / "report.html"
    write_text(page, run_page(directory, trained.recipe, subject))
    return page


def _pixels(trained: Restored, paths: Sequence[str]) -> np.ndarray:
    """Raises OSError where an image is not to be had."""
    recipe = trained.recipe
    try:
        root = samples_of(recipe.dataset, recipe.seed, cache_folder(recipe.data.cache), recipe.data.mirror).root
        return squares([root / path for path in paths], trained.preprocessing)
    except (UserFault, BrokenImage) as fault:
        raise OSError(str(fault).splitlines()[0]) from fault
