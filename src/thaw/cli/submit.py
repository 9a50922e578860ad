"""`thaw submit RUN`: the unlabelled images of a run's data set, predicted into a file that Kaggle takes."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from thaw.cli.arguments import is_help_request
from thaw.config.errors import Problem, UserError
from thaw.config.schema import CsvDatasetConfig

if TYPE_CHECKING:
    from thaw.inference.load import Classifier

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
    if is_help_request(arguments):
        print(HELP)
        return 0
    run_or_checkpoint, *settings = arguments
    option_values = dict(setting.split("=", 1) for setting in settings if "=" in setting)
    if unknown_settings := [setting for setting in settings if setting.split("=", 1)[0] not in ("out", "dataset.root")]:
        raise UserError("not understood.", [Problem(unknown_settings[0], valid="dataset.root=DIR, out=FILE")])
    from thaw.inference.load import load
    from thaw.system.files import write_text

    classifier, out = load(run_or_checkpoint), Path(option_values.get("out", "submission.csv")).expanduser()
    table, paths = _find_unlabelled_images(classifier, option_values.get("dataset.root"))
    write_text(out, _format_csv([table.path_column, *classifier.classes], _predict_rows(classifier, paths)))
    print(f"{len(paths)} images predicted into {out}")
    return 0


def _find_unlabelled_images(classifier: Classifier, root: str | None) -> tuple[CsvDatasetConfig, list[Path]]:
    from thaw.data.factory import load_samples

    recipe, dataset = classifier.recipe, classifier.recipe.dataset
    if not isinstance(dataset, CsvDatasetConfig) or dataset.unlabelled is None:
        problem = Problem(
            f"dataset={dataset.name}", "no unlabelled images", "dataset=dog_breeds, or dataset.unlabelled=FOLDER"
        )
        raise UserError("nothing to predict.", [problem])
    dataset = dataset.model_copy(update={"root": root}) if root else dataset
    samples = load_samples(recipe.model_copy(update={"dataset": dataset}))
    folder = samples.root / str(dataset.unlabelled)
    paths = sorted(folder.glob(f"*{dataset.suffix}"))
    if not paths:
        raise UserError("nothing to predict.", [Problem(str(folder), "no images", f"images *{dataset.suffix}")])
    return dataset, paths


def _predict_rows(classifier: Classifier, paths: Sequence[Path]) -> Iterator[list[str]]:
    from thaw.inference.predict import iter_predictions

    for prediction in iter_predictions(classifier, paths):
        path = paths[prediction.index]
        if prediction.logits is None:
            problem = Problem(f"{path.name}: {prediction.error}", fix="mend it: Kaggle wants a row for every image")
            raise UserError("an image cannot be decoded.", [problem])
        yield [path.stem, *(f"{probability:.6g}" for probability in prediction.logits[0].softmax(0).tolist())]


def _format_csv(header: Sequence[str], rows: Iterator[list[str]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return buffer.getvalue()
