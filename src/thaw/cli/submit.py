"""`thaw submit RUN`: predict the unlabelled images of a run's data set into a file for Kaggle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from thaw.cli.grammar import Verb
from thaw.cli.options import FilePath, Option, path_argument
from thaw.config.errors import EXIT_SUCCESS


@Verb(
    "submit",
    summary="predict a data set's unlabelled images into a file for Kaggle",
    examples=("thaw submit outputs/RUN", "thaw submit best.ckpt dataset.root=DIR --out submission.csv"),
    description="RUN is a run directory or a checkpoint of dataset=dog_breeds, or of another table with unlabelled "
    "images. dataset.root is where the data set is now, if it has moved. The file has a row for each image: its name, "
    "and the probability of each class.",
    paths=(path_argument("checkpoint", "RUN|CKPT", FilePath()),),
    options=(Option("--out", type=FilePath(), default=Path("submission.csv"), metavar="FILE", help="file to write"),),
    recipe_keys=("dataset.root",),
    no_args_is_help=True,
)
def submit(checkpoint: Path, overrides: Sequence[str], out: Path) -> int:
    """Write the submission and return the exit status.

    Raises:
        UserError: if the run cannot be used, or has nothing to predict.
    """
    from thaw.inference.evaluate import write_submission
    from thaw.inference.load import load

    root = overrides[-1].partition("=")[2] if overrides else None
    print(f"{write_submission(load(checkpoint), out, root)} images predicted into {out}")
    return EXIT_SUCCESS
