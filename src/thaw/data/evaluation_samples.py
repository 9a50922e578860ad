"""The samples that a trained network is evaluated on: labels are the network's, and nothing is trained."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from thaw.config.errors import Problem, UserError, find_closest_name, format_names
from thaw.data.identity import DataIdentity
from thaw.data.readers import ReaderResult
from thaw.data.samples import Samples, index_rows, split_rows
from thaw.system.reporter import SILENT, Reporter

MAX_LISTED_NAMES = 8


@dataclass(frozen=True)
class EvaluationSamples:
    """Samples with the splits that training would give them. `has_own_splits`: the data set has some itself."""

    samples: Samples
    has_own_splits: bool

    def split_by_identity(self, identity: DataIdentity) -> Samples:
        """Return samples of which the test images are none that the network was trained or selected on.

        Those are recognized by content and are in `train` and `val`. If the data set has no splits itself, all other
        images are test images.
        """
        known_splits = identity.find_splits(self.samples.hashes)
        return self.samples.replace_splits(
            [
                replace(sample, split=known_split or (sample.split if self.has_own_splits else "test"))
                for sample, known_split in zip(self.samples.samples, known_splits, strict=True)
            ]
        )


def build_evaluation_samples(
    reader_result: ReaderResult,
    classes: Sequence[str],
    fractions: Mapping[str, float],
    seed: int,
    per_class: int | None = None,
    reporter: Reporter = SILENT,
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
    try:
        rows = split_rows(reader_result, fractions, seed, per_class)
    except UserError:  # dataset.per_class needs more images: these are not the data of the training
        rows = reader_result.rows
    named_rows = [replace(row, class_name=index_by_name.get(row.class_name, row.class_name)) for row in rows]
    samples = index_rows(tuple(classes), named_rows, reader_result, reporter)
    return EvaluationSamples(samples, bool(reader_result.provided_splits))


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
