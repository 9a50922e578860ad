"""`thaw submit RUN`: the unlabelled images of a run's data set, predicted into a file that Kaggle takes."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from thaw.commands.verbs import asks_for_help
from thaw.config.faults import Fault, UserFault
from thaw.config.schema import Table

if TYPE_CHECKING:
    from thaw.trained.restore import Restored

HELP = """thaw submit RUN [dataset.root=DIR] [out=FILE]

  RUN            a run directory, or a checkpoint, of dataset=dog_breeds or another table with unlabelled images
  dataset.root   where the data set lies now, if it has moved
  out            the file to write; submission.csv where nothing is said

One row an image: its name, and the probability of each class."""


def run(arguments: Sequence[str]) -> int:
    """Writes the submission and returns the exit status.

    Raises:
        UserFault: for arguments that are not understood, a run that cannot be used, or nothing to predict.
    """
    if asks_for_help(arguments):
        print(HELP)
        return 0
    place, *settings = arguments
    given = dict(one.split("=", 1) for one in settings if "=" in one)
    if unknown := [one for one in settings if one.split("=", 1)[0] not in ("out", "dataset.root")]:
        raise UserFault("not understood.", [Fault(unknown[0], valid="dataset.root=DIR, out=FILE")])
    from thaw.trained.restore import load
    from thaw.training.files import write_text

    trained, out = load(place), Path(given.get("out", "submission.csv")).expanduser()
    table, paths = _unlabelled(trained, given.get("dataset.root"))
    write_text(out, _as_csv([table.path_column, *trained.classes], _rows(trained, paths)))
    print(f"{len(paths)} images predicted into {out}")
    return 0


def _unlabelled(trained: Restored, root: str | None) -> tuple[Table, list[Path]]:
    from thaw.data.build import samples_of
    from thaw.data.cache import cache_folder

    recipe, dataset = trained.recipe, trained.recipe.dataset
    if not isinstance(dataset, Table) or dataset.unlabelled is None:
        fault = Fault(
            f"dataset={dataset.name}", "no unlabelled images", "dataset=dog_breeds, or dataset.unlabelled=FOLDER"
        )
        raise UserFault("nothing to predict.", [fault])
    dataset = dataset.model_copy(update={"root": root}) if root else dataset
    samples = samples_of(dataset, recipe.seed, cache_folder(recipe.data.cache), recipe.data.mirror)
    folder = samples.root / str(dataset.unlabelled)
    paths = sorted(folder.glob(f"*{dataset.suffix}"))
    if not paths:
        raise UserFault("nothing to predict.", [Fault(str(folder), "no images", f"images *{dataset.suffix}")])
    return dataset, paths


def _rows(trained: Restored, paths: Sequence[Path]) -> Iterator[list[str]]:
    from thaw.trained.prediction import answers

    for answer in answers(trained, paths):
        path = paths[answer.number]
        if answer.logits is None:
            fault = Fault(f"{path.name}: {answer.broken}", fix="mend it: Kaggle wants a row for every image")
            raise UserFault("an image cannot be decoded.", [fault])
        yield [path.stem, *(f"{one:.6g}" for one in answer.logits[0].softmax(0).tolist())]


def _as_csv(header: Sequence[str], rows: Iterator[list[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
