"""Predicts the unlabelled images of a data set into a file for Kaggle."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from thaw.config.errors import Problem, UserError
from thaw.config.schema import CsvDatasetConfig
from thaw.data.factory import load_samples
from thaw.inference.load import Classifier
from thaw.inference.predict import iter_predictions
from thaw.system.files import write_text


def write_submission(classifier: Classifier, file: Path, root: str | None = None) -> int:
    """Write a row for each unlabelled image of the classifier's data set, its name and the probability of each class,
    and return the number of rows. `root` is where the data set is now, if it has moved.

    Raises:
        UserError: if the data set has no unlabelled images, or one cannot be decoded.
    """
    dataset, paths = _find_unlabelled_images(classifier, root)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([dataset.path_column, *classifier.classes])
    writer.writerows(_predict_rows(classifier, paths))
    write_text(file, buffer.getvalue())
    return len(paths)


def _find_unlabelled_images(classifier: Classifier, root: str | None) -> tuple[CsvDatasetConfig, list[Path]]:
    recipe, dataset = classifier.recipe, classifier.recipe.dataset
    if not isinstance(dataset, CsvDatasetConfig) or dataset.unlabelled is None:
        valid = "dataset=dog_breeds, or dataset.unlabelled=FOLDER"
        problem = Problem(f"dataset={dataset.name}", "no unlabelled images", valid)
        raise UserError("nothing to predict.", [problem])
    dataset = dataset.model_copy(update={"root": root}) if root else dataset
    samples = load_samples(recipe.model_copy(update={"dataset": dataset}))
    folder = samples.root / str(dataset.unlabelled)
    paths = sorted(folder.glob(f"*{dataset.suffix}"))
    if not paths:
        raise UserError("nothing to predict.", [Problem(str(folder), "no images", f"images *{dataset.suffix}")])
    return dataset, paths


def _predict_rows(classifier: Classifier, paths: Sequence[Path]) -> Iterator[list[str]]:
    for prediction in iter_predictions(classifier, paths):
        path = paths[prediction.index]
        if prediction.logits is None:
            problem = Problem(f"{path.name}: {prediction.error}", fix="repair it: Kaggle wants a row for every image")
            raise UserError("an image cannot be decoded.", [problem])
        yield [path.stem, *(f"{probability:.6g}" for probability in prediction.logits[0].softmax(0).tolist())]
