"""Evaluate a trained network on labeled images, write the result as files, and predict a data set's unlabeled
images."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thaw.config.errors import Problem, UserError
from thaw.config.schema import CsvDatasetConfig, Recipe
from thaw.data.augmentation import build_augmentation
from thaw.data.batches import SequentialBatchSampler
from thaw.data.image_store import MAX_LISTED_IMAGES
from thaw.data.leaks import find_leaks, select_clean
from thaw.data.sample_table import SPLITS
from thaw.data.samples import Samples
from thaw.features.cache import find_cached_features
from thaw.features.cache_key import build_feature_spec
from thaw.features.views import EVALUATION_VIEW, build_views
from thaw.inference.evaluation_data import load_recorded_samples
from thaw.inference.load import Classifier
from thaw.inference.predict import iter_predictions, load_pixels
from thaw.metrics.calibration import Reliability, compute_ece_interval, compute_reliability
from thaw.metrics.classification import classification_metrics, confusion_matrix, top_losses
from thaw.metrics.per_class import ClassMetrics, compute_class_metrics
from thaw.runs.run import Run
from thaw.system.csv_files import format_rows
from thaw.system.files import write_text
from thaw.system.reporter import SILENT, Reporter

ALL_SPLITS = "all"
MAX_SHOWN_IMAGES = 32


@dataclass(frozen=True)
class Evaluation:
    """The logits of labeled images.

    `positions` [n] are indices of `samples`, `logits` is float32 [n, classes]. `skipped` is path -> the reason, for
    images that cannot be decoded.
    """

    samples: Samples
    positions: np.ndarray
    logits: Tensor
    skipped: dict[str, str]

    @property
    def labels(self) -> Tensor:
        """The labels, int64 [n]."""
        return torch.from_numpy(self.samples.get_labels()[self.positions])

    @property
    def confusion(self) -> np.ndarray:
        """The confusion matrix, int64 [classes, classes]; rows are labels, columns predictions."""
        matrix: np.ndarray = confusion_matrix(self.logits.argmax(1), self.labels, len(self.samples.classes)).numpy()
        return matrix

    def compute_metrics(self) -> dict[str, Any]:
        """Compute the metrics of a run's metrics.json, and a bootstrap interval of the calibration error."""
        groups = self.samples.get_groups()[self.positions] if self.samples.has_groups else None
        metrics = classification_metrics(self.logits, self.labels, groups)
        return metrics | {"ece_ci95": list(compute_ece_interval(*self._compute_confidence()))}

    def count_leaks(self) -> dict[str, int]:
        """Count the evaluated test images that are also in train or val of `samples`, by kind; near copies are not
        searched for."""
        counts = {kind: int(np.isin(self.positions, leaks).sum()) for kind, leaks in find_leaks(self.samples).items()}
        return {kind: count for kind, count in counts.items() if count}

    def without_leaks(self) -> Evaluation | None:
        """Return the evaluation of the images that do not leak; None if none is left."""
        is_clean = select_clean(self.positions, find_leaks(self.samples))
        clean = replace(self, positions=self.positions[is_clean], logits=self.logits[torch.from_numpy(is_clean)])
        return clean if is_clean.any() else None

    def compute_class_metrics(self) -> list[ClassMetrics]:
        """Compute recall, precision and F1 of each class."""
        return compute_class_metrics(self.confusion, self.samples.classes)

    def compute_reliability(self) -> Reliability:
        """Compute accuracy and confidence per bin of probability."""
        return compute_reliability(*self._compute_confidence())

    def _compute_confidence(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the probability of each prediction, and whether it is correct."""
        correct: np.ndarray = (self.logits.argmax(1) == self.labels).numpy()
        return self.logits.double().softmax(1).max(1).values.numpy(), correct


def evaluate_splits(
    classifier: Classifier, recipe: Recipe, samples: Samples, splits: Sequence[str], reporter: Reporter = SILENT
) -> dict[str, Evaluation]:
    """Evaluate a network on those of `splits` that `samples` have; `all` are all images.

    Raises:
        UserError: where there are none of the splits, or an image cannot be decoded.
    """
    positions_by_split = {split: _select_positions(samples, split) for split in splits}
    positions_by_split = {split: positions for split, positions in positions_by_split.items() if len(positions)}
    if not positions_by_split:
        counts = samples.count_per_split()
        got = ", ".join(f"{count} {split}" for split, count in counts.items())
        fix = f"split={max(counts, key=lambda split: counts[split])}"
        problem = Problem(f"split={','.join(splits)}", got, fix=fix)
        raise UserError("nothing to evaluate.", [problem])
    return {
        split: _evaluate_split(classifier, recipe, samples, positions, reporter)
        for split, positions in positions_by_split.items()
    }


def _select_positions(samples: Samples, split: str) -> np.ndarray:
    if split == ALL_SPLITS:
        return np.concatenate([samples.get_positions(name) for name in SPLITS])
    return samples.get_positions(split)


def _evaluate_split(
    classifier: Classifier, recipe: Recipe, samples: Samples, positions: np.ndarray, reporter: Reporter
) -> Evaluation:
    cached_logits = _compute_cached_logits(classifier, recipe, samples, positions, reporter)
    if cached_logits is not None:
        return Evaluation(samples, positions, cached_logits, {})
    paths = [samples.root / samples.samples[position].path for position in positions]
    logits, decoded_indices, skipped = list[Tensor](), list[int](), dict[str, str]()
    for raw_prediction in iter_predictions(classifier, paths, recipe.trainer.batch_size):
        if raw_prediction.logits is None:
            skipped[samples.samples[positions[raw_prediction.index]].path] = raw_prediction.error
        else:
            logits.append(raw_prediction.logits)
            decoded_indices.append(raw_prediction.index)
    _check_broken(samples.root, skipped, recipe.data.broken == "skip" and bool(decoded_indices))
    return Evaluation(samples, positions[decoded_indices], torch.cat(logits), skipped)


def _check_broken(root: Path, skipped: dict[str, str], can_skip: bool) -> None:
    if skipped and not can_skip:
        problems = [Problem(f"{path}: {reason}") for path, reason in islice(skipped.items(), MAX_LISTED_IMAGES)]
        headline = f"{len(skipped)} images under {root} cannot be decoded; data.broken=skip leaves them out."
        raise UserError(headline, problems)


def _compute_cached_logits(
    classifier: Classifier, recipe: Recipe, samples: Samples, positions: np.ndarray, reporter: Reporter
) -> Tensor | None:
    """Compute the logits from the run's cached features, the deepest that the cache still has; None without any.

    The run's metrics come from these features; computing them again would round differently.
    """
    if recipe.feature_cache.mode == "off" or recipe.trainer.test_time_augmentation != "none":
        return None
    views = build_views(samples, build_augmentation(recipe.augment), recipe.seed, recipe.feature_cache.views)
    if (views.rows[EVALUATION_VIEW, positions] < 0).any():
        return None
    spec = build_feature_spec(recipe.backbone, classifier.preprocessing, views)
    depths, labels = classifier.cached_depths[::-1], samples.get_labels()
    features = find_cached_features(recipe, spec, classifier.network, depths, labels, classifier.device, reporter)
    if features is None:
        return None
    batches = SequentialBatchSampler(positions, recipe.trainer.batch_size).iter_positions()
    return torch.cat(
        [classifier.compute_logits(features.get_evaluation_features(batch), features.depth) for batch in batches]
    )


def write_evaluation(
    folder: Path, classifier: Classifier, split: str, evaluation: Evaluation, metrics: Mapping[str, Any]
) -> None:
    """Write to `folder`: metrics.json, with the `metrics` of all splits; of `split` per_class.csv, predictions.csv,
    confusion_matrix.png, reliability.png and worst.jpg, the predictions with the highest loss."""
    from thaw.visualization.plots.training import save_confusion_matrix, save_reliability_diagram

    positions = torch.from_numpy(evaluation.positions)
    folder.mkdir(parents=True, exist_ok=True)
    files = Run(folder)  # the formats are those of a run
    files.write_metrics(dict(metrics))
    files.write_predictions(evaluation.samples, evaluation.logits, positions)
    write_text(folder / "per_class.csv", _format_csv(evaluation.compute_class_metrics()))
    count, error, confusion = len(evaluation.labels), metrics[split]["ece"], evaluation.confusion
    title = f"{confusion.trace()} of {count} {split} images right"
    save_confusion_matrix(confusion, evaluation.samples.classes, title, folder / "confusion_matrix.png")
    title = f"{count} {split} images, calibration error {error:.3f}"
    save_reliability_diagram(evaluation.compute_reliability(), title, folder / "reliability.png")
    _save_top_losses(folder / "worst.jpg", classifier, evaluation)


def _format_csv(rows: Sequence[ClassMetrics]) -> str:
    names = (field.name.removesuffix("_ci95") if field.name != "name" else "class" for field in fields(rows[0]))
    header = list(dict.fromkeys(names))
    interval_names = header[header.index("recall") :]
    interval_columns = [f"{name}{suffix}" for name in interval_names for suffix in ("", "_low", "_high")]
    return format_rows(
        [[*header[: -len(interval_names)], *interval_columns], *(_format_cells(astuple(row)) for row in rows)]
    )


def _format_cells(values: Sequence[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, tuple):
            yield from (f"{number:.6g}" for number in value)
        else:
            yield f"{value:.6g}" if isinstance(value, float) else value


def _save_top_losses(file: Path, classifier: Classifier, evaluation: Evaluation) -> None:
    from thaw.visualization.plots.image_grid import build_captions, save_image_grid

    indices = top_losses(evaluation.logits, evaluation.labels, MAX_SHOWN_IMAGES)
    samples = [evaluation.samples.samples[evaluation.positions[index]] for index in indices]
    labels, paths = [sample.label for sample in samples], [sample.path for sample in samples]
    captions = build_captions(evaluation.logits[indices], labels, paths, evaluation.samples.classes)
    pixels = load_pixels([evaluation.samples.root / sample.path for sample in samples], classifier.preprocessing)
    save_image_grid(pixels, captions, file)


def find_metric_differences(metrics: Mapping[str, Any], recorded_metrics: Mapping[str, Any]) -> dict[str, float] | None:
    """Return "SPLIT METRIC" -> largest difference for each metric that differs from the recorded one; None if the two
    have no metric in common."""
    keys = [(split, key) for split in metrics if split in recorded_metrics for key in metrics[split]]
    pairs = {
        f"{split} {key}": (metrics[split][key], recorded_metrics[split][key])
        for split, key in keys
        if key in recorded_metrics[split]
    }
    differences = {name: _max_difference(actual, expected) for name, (actual, expected) in pairs.items()}
    return {name: differences[name] for name, pair in pairs.items() if pair[0] != pair[1]} if pairs else None


def _max_difference(actual: Any, expected: Any) -> float:
    pairs = zip(actual, expected, strict=True) if isinstance(actual, list) else [(actual, expected)]
    return float(max(abs(actual_number - expected_number) for actual_number, expected_number in pairs))


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
    samples = load_recorded_samples(recipe.model_copy(update={"dataset": dataset}))
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
