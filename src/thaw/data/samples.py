"""A data set as a table of samples, split once by seed, with a fingerprint that names exactly these images."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from thaw.config.errors import Problem, UserError, format_names
from thaw.data.readers import SPLITS as SPLITS
from thaw.data.readers import SUFFIXES as SUFFIXES
from thaw.data.readers import ReaderResult, Row, escape_paths, read_image_folder
from thaw.data.splits import split_per_class, split_stratified


@dataclass(frozen=True)
class Sample:
    """One labelled image; `path` is relative to the data set's root, with forward slashes."""

    path: str
    label: int
    split: str


@dataclass(frozen=True)
class Samples:
    """All samples, ordered by split and path; `passed_over` names the files beside them: no image, hidden, or in no
    class folder. `hashes` are the SHA-256 of the files, in the order of the samples."""

    root: Path
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    ignored_files: tuple[str, ...]
    fingerprint: str
    hashes: tuple[str, ...] = ()

    def get_positions(self, split: str) -> np.ndarray:
        """Positions of the split's samples in `samples`, int64."""
        return np.array([index for index, sample in enumerate(self.samples) if sample.split == split], dtype=np.int64)

    def count_per_split(self) -> dict[str, int]:
        return {split: sum(sample.split == split for sample in self.samples) for split in SPLITS}

    def get_labels(self) -> np.ndarray:
        """int64 [samples]."""
        return np.array([sample.label for sample in self.samples], dtype=np.int64)

    def find_unique_contents(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions of one sample of each content, int64 [contents], in an order that depends on the contents alone;
        and which of those each sample equals, int64 [samples]. However the data set is split, they are the same."""
        _, first_positions, inverse = np.unique(np.array(self.hashes), return_index=True, return_inverse=True)
        return first_positions.astype(np.int64), inverse.astype(np.int64)

    def subset(self, positions: Sequence[int]) -> Samples:
        """The samples at `positions`, of the same classes, with the fingerprint of what is left."""
        samples = tuple(self.samples[position] for position in positions)
        hashes = tuple(self.hashes[position] for position in positions)
        fingerprint = _compute_fingerprint(self.classes, samples, hashes)
        return replace(self, samples=samples, hashes=hashes, fingerprint=fingerprint)

    def replace_splits(self, samples: Sequence[Sample]) -> Samples:
        """The same images in the splits that `samples` say, with the fingerprint of these."""
        return replace(
            self, samples=tuple(samples), fingerprint=_compute_fingerprint(self.classes, samples, self.hashes)
        )


def load_folder_samples(
    root: Path,
    folders: Mapping[str, str | None],
    fractions: Mapping[str, float],
    seed: int,
    exclude: Collection[str] = (),
    per_class: int | None = None,
) -> Samples:
    """The samples of an image folder: `root/SPLIT/CLASS/...` where sub-folders of `folders` are there, else
    `root/CLASS/...`, without the classes of `exclude`. Splits without a folder are cut as `samples_from` says.

    Raises:
        UserFault: as `samples_from`.
    """
    return build_samples(root, read_image_folder(root, folders, exclude), fractions, seed, per_class)


def build_samples(
    root: Path, reader_result: ReaderResult, fractions: Mapping[str, float], seed: int, per_class: int | None = None
) -> Samples:
    """The samples of what a reader found. Splits that are not given are cut from the train images, class by class, by
    `seed`: `fractions[split]` of them, or all but `per_class` images a class (see `cut_per_class`).

    Raises:
        UserFault: where there are no images, one class only, no train or test images, a class without a train image,
            or class names that are no text.
    """
    classes = tuple(sorted({row.class_name for row in reader_result.rows}))
    _check_classes(root, classes, reader_result)
    class_to_idx = {name: index for index, name in enumerate(classes)}
    rows = _split_rows(root, reader_result, fractions, seed, per_class)
    samples = [Sample(row.path, class_to_idx[row.class_name], row.split or "train") for row in rows]
    ordered_samples = tuple(sorted(samples, key=lambda sample: (SPLITS.index(sample.split), sample.path)))
    hashes = tuple(hashlib.sha256((root / sample.path).read_bytes()).hexdigest() for sample in ordered_samples)
    dataset_samples = Samples(
        root,
        classes,
        ordered_samples,
        reader_result.ignored_files,
        _compute_fingerprint(classes, ordered_samples, hashes),
        hashes,
    )
    _check_splits(dataset_samples, reader_result)
    return dataset_samples


def _split_rows(
    root: Path, reader_result: ReaderResult, fractions: Mapping[str, float], seed: int, per_class: int | None
) -> Sequence[Row]:
    if per_class is None:
        missing_fractions = {
            split: fraction
            for split, fraction in fractions.items()
            if split not in reader_result.provided_splits and fraction > 0
        }
        return split_stratified(reader_result.rows, missing_fractions, seed)
    if own_splits := sorted(reader_result.provided_splits - {"train"}):
        got = f"{format_names(own_splits)} images of its own"
        problem = Problem(f"dataset.per_class={per_class}", got, "a data set without splits", "dataset.per_class=null")
        raise UserError(f"the data set under {root} is split already.", [problem])
    return split_per_class(reader_result.rows, per_class, fractions["val"], seed)


def _compute_fingerprint(classes: tuple[str, ...], samples: Sequence[Sample], hashes: Sequence[str]) -> str:
    """Changes with any image's bytes, path, label or split."""
    digest = hashlib.sha256(repr(classes).encode())
    for sample, file_hash in zip(samples, hashes, strict=True):
        digest.update(os.fsencode(sample.path))  # a name need not be UTF-8
        digest.update(f"\0{sample.label}\0{sample.split}\0{file_hash}\n".encode())
    return digest.hexdigest()[:16]


def _check_classes(root: Path, classes: Sequence[str], reader_result: ReaderResult) -> None:
    if len(classes) < 2:
        got = f"{len(classes)} class{'' if len(classes) == 1 else 'es'} {format_names(escape_paths(classes))}".strip()
        raise UserError(
            "the data set has too few classes.",
            [Problem(str(root), got, reader_result.layout, "dataset.root=DIR of such data")],
        )
    if undecodable_names := [name for name in classes if escape_paths([name]) != (name,)]:
        problem = Problem(
            str(root),
            format_names(escape_paths(undecodable_names)),
            "names in UTF-8: they stand in every table and figure",
        )
        raise UserError("class names that cannot be read.", [problem])
    train_classes = {row.class_name for row in reader_result.rows if row.split in (None, "train")}
    if missing_classes := [name for name in classes if name not in train_classes]:
        problem = Problem(
            str(root), f"no train image of {format_names(missing_classes)}", "every class among the train images"
        )
        raise UserError("classes that nothing can learn.", [problem])


def _check_splits(samples: Samples, reader_result: ReaderResult) -> None:
    counts = samples.count_per_split()
    empty_splits = [split for split in ("train", "test") if not counts[split]]
    if empty_splits:
        got = ", ".join(f"{count} {split}" for split, count in counts.items())
        fix = f"{reader_result.missing_split_hint.format(split=empty_splits[0])}, or dataset.fractions.{empty_splits[0]}=0.15"
        raise UserError(f"the data set has no {empty_splits[0]} images.", [Problem(str(samples.root), got, fix=fix)])


UNUSED_SPLIT = "unused"  # the split of train images that are left aside; still one table, so that caches are shared


def limit_per_class(samples: Samples, per_class: int, seed: int) -> Samples:
    """At most `per_class` train images a class, drawn by (seed, class); those of a smaller number are among those of a
    larger one. The others are in the split `unused`, val and test stay as they are."""
    kept_positions = set(_sample_positions(samples, per_class, seed))
    new_samples = [
        replace(sample, split=UNUSED_SPLIT) if sample.split == "train" and position not in kept_positions else sample
        for position, sample in enumerate(samples.samples)
    ]
    return samples.replace_splits(new_samples)


def _sample_positions(samples: Samples, per_class: int, seed: int) -> Iterator[int]:
    labels, train_positions = samples.get_labels(), samples.get_positions("train")
    for label in range(len(samples.classes)):
        class_positions = train_positions[labels[train_positions] == label]
        yield from class_positions[
            np.random.default_rng((seed, label)).permutation(len(class_positions))[:per_class]
        ].tolist()
