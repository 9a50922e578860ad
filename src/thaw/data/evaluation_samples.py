"""The samples that a trained network is evaluated on: labels are the network's, and nothing is trained."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from thaw.config.errors import Problem, UserError, find_closest_name, format_names
from thaw.data.file_index import NO_INDEX, FileIndex
from thaw.data.identity import DataIdentity
from thaw.data.readers import ReaderResult
from thaw.data.samples import Samples, index_rows
from thaw.data.splits import SplitSettings, draw_splits, prepare_splits

MAX_LISTED_NAMES = 8


@dataclass(frozen=True)
class EvaluationSamples:
    """Samples with the splits that training would give them.

    Attributes:
        samples: in the splits of a training.
        own_splits: path -> split without folds, of a data set that has splits itself; None: it has none.
    """

    samples: Samples
    own_splits: Mapping[str, str] | None

    @property
    def has_own_splits(self) -> bool:
        """Whether the data set has splits itself."""
        return self.own_splits is not None

    @property
    def num_own_test_images(self) -> int:
        """The number of test images that the data set has itself."""
        return list((self.own_splits or {}).values()).count("test")

    def split_by_identity(self, identity: DataIdentity) -> Samples:
        """Return samples of which the test images are none that the network was trained or selected on.

        Those are recognized by content and are in `train` and `val`. If the data set has no splits itself, all other
        images are test images.
        """
        known_splits = identity.find_splits(self.samples.hashes)
        return self.samples.replace_splits(
            [
                replace(sample, split=known_split or (self.own_splits[sample.path] if self.own_splits else "test"))
                for sample, known_split in zip(self.samples.samples, known_splits, strict=True)
            ]
        )


def build_evaluation_samples(
    reader_result: ReaderResult,
    classes: Sequence[str],
    settings: SplitSettings,
    file_index: FileIndex = NO_INDEX,
) -> EvaluationSamples:
    """Build the samples of a reader's rows, with labels that are indices into `classes`.

    Any part of the data is enough: a test folder alone, some of the classes, one image.

    Raises:
        UserError: if there are no images, or images of other classes.
    """
    index_by_name = {_normalize(name): name for name in classes}
    unknown_names = sorted({row.class_name for row in reader_result.rows} - index_by_name.keys() - {*classes})
    if unknown_names or not reader_result.rows:
        raise UserError(*_describe_other_classes(reader_result, unknown_names, classes))
    split_result = _draw_splits_if_possible(reader_result, settings)
    rows = [replace(row, class_name=index_by_name.get(row.class_name, row.class_name)) for row in split_result.rows]
    samples = index_rows(tuple(classes), replace(split_result, rows=tuple(rows)), file_index)
    if not reader_result.provided_splits:
        return EvaluationSamples(samples, None)
    if settings.folds is not None:
        split_result = _draw_splits_if_possible(reader_result, replace(settings, folds=None, fold=None))
    return EvaluationSamples(samples, {row.path: row.split or "train" for row in split_result.rows})


def _draw_splits_if_possible(reader_result: ReaderResult, settings: SplitSettings) -> ReaderResult:
    try:
        return draw_splits(prepare_splits(reader_result, settings), settings)
    except UserError:  # per_class, folds and groups need more images: these are not the data of the training
        return reader_result


def _normalize(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _describe_other_classes(
    reader_result: ReaderResult, unknown_names: Sequence[str], classes: Sequence[str]
) -> tuple[str, list[Problem]]:
    root = reader_result.root
    if not unknown_names:
        fix = "dataset.root=DIR of labeled images"
        return "nothing to evaluate.", [Problem(str(root), "no images", reader_result.layout, fix)]
    names = {row.class_name for row in reader_result.rows}
    missing_names = [name for name in classes if name not in names]
    got = f"{len(names)} classes; unknown to the network: {format_names(unknown_names, MAX_LISTED_NAMES)}"
    missing = format_names(missing_names, MAX_LISTED_NAMES) or "none"
    valid = f"the network's {len(classes)}, or some of them; not in the data set: {missing}"
    problem = Problem(str(root), got, valid, _suggest_names(unknown_names, classes))
    return "the data set has other classes than the network.", [problem]


def _suggest_names(unknown_names: Sequence[str], classes: Collection[str]) -> str:
    pairs = [(name, find_closest_name(name, list(classes))) for name in unknown_names]
    renames = [f"{closest} instead of {name}" for name, closest in pairs if closest]
    exclusion = f"dataset.exclude=[{','.join(unknown_names)}] for an image folder"
    return f"{format_names(renames, MAX_LISTED_NAMES)}, or {exclusion}" if renames else exclusion
