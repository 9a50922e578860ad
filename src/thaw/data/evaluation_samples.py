"""The samples that a trained network is evaluated on: labels are the network's, and nothing is trained."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from thaw.config.errors import Problem, UserError, find_closest_name, format_names
from thaw.data.file_index import NO_INDEX, FileIndex
from thaw.data.identity import DataIdentity
from thaw.data.readers import ReaderResult
from thaw.data.sample_table import SPLIT_CODES
from thaw.data.samples import Samples, index_rows
from thaw.data.splits import SplitSettings, draw_splits, prepare_splits

MAX_LISTED_NAMES = 8


@dataclass(frozen=True)
class EvaluationSamples:
    """Samples with the splits that training would give them.

    Attributes:
        samples: in the splits of a training.
        own_splits: the split of each sample without folds, int8 [samples], an index into SPLIT_NAMES, of a data set
            that has splits itself; None: it has none.
    """

    samples: Samples
    own_splits: np.ndarray | None

    @property
    def has_own_splits(self) -> bool:
        """Whether the data set has splits itself."""
        return self.own_splits is not None

    @property
    def num_own_test_images(self) -> int:
        """The number of test images that the data set has itself."""
        return 0 if self.own_splits is None else int((self.own_splits == SPLIT_CODES["test"]).sum())

    def split_by_identity(self, identity: DataIdentity) -> Samples:
        """Return samples of which the test images are none that the network was trained or selected on.

        Those are recognized by content and are in `train` and `val`. If the data set has no splits itself, all other
        images are test images.
        """
        all_test = np.full(len(self.samples.samples), SPLIT_CODES["test"], dtype=np.int8)
        splits = (all_test if self.own_splits is None else self.own_splits).copy()
        for split, is_known in identity.recognize(self.samples.hashes).items():
            splits[is_known] = SPLIT_CODES[split]
        return self.samples.replace_splits(splits)


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
    name_by_normalized = {_normalize(name): name for name in classes}
    names = [name_by_normalized.get(name, name) for name in reader_result.rows.classes]
    unknown_names = sorted({*reader_result.rows.list_present_classes()} - name_by_normalized.keys() - {*classes})
    if unknown_names or not reader_result.rows:
        raise UserError(*_describe_other_classes(reader_result, unknown_names, classes))
    split_result = _draw_splits_if_possible(reader_result, settings)
    result = replace(split_result, rows=split_result.rows.replace_classes(classes, names))
    samples = index_rows(result, classes, file_index.hash_files(result.root, result.rows.paths))
    if not reader_result.provided_splits:
        return EvaluationSamples(samples, None)
    if settings.folds is not None:
        split_result = _draw_splits_if_possible(reader_result, replace(settings, folds=None, fold=None))
    own_rows = split_result.rows.finish_splits()
    return EvaluationSamples(samples, own_rows.splits[own_rows.paths.find_positions(samples.samples.paths)])


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
    names = reader_result.rows.list_present_classes()
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
