"""A data set as a table of samples, split once by seed, with a fingerprint that names exactly these images."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from thaw.config.faults import Fault, UserFault, listing
from thaw.data.rows import SPLITS as SPLITS
from thaw.data.rows import SUFFIXES as SUFFIXES
from thaw.data.rows import Found, Row, folder_rows, shown
from thaw.data.splits import cut, cut_per_class


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
    passed_over: tuple[str, ...]
    fingerprint: str
    hashes: tuple[str, ...] = ()

    def of(self, split: str) -> np.ndarray:
        """Positions of the split's samples in `samples`, int64."""
        return np.array([index for index, sample in enumerate(self.samples) if sample.split == split], dtype=np.int64)

    def counts(self) -> dict[str, int]:
        return {split: sum(sample.split == split for sample in self.samples) for split in SPLITS}

    def labels(self) -> np.ndarray:
        """int64 [samples]."""
        return np.array([sample.label for sample in self.samples], dtype=np.int64)

    def contents(self) -> tuple[np.ndarray, np.ndarray]:
        """Positions of one sample of each content, int64 [contents], in an order that depends on the contents alone;
        and which of those each sample equals, int64 [samples]. However the data set is split, they are the same."""
        _, first, which = np.unique(np.array(self.hashes), return_index=True, return_inverse=True)
        return first.astype(np.int64), which.astype(np.int64)

    def only(self, positions: Sequence[int]) -> Samples:
        """The samples at `positions`, of the same classes, with the fingerprint of what is left."""
        samples = tuple(self.samples[position] for position in positions)
        hashes = tuple(self.hashes[position] for position in positions)
        fingerprint = _fingerprint(self.classes, samples, hashes)
        return replace(self, samples=samples, hashes=hashes, fingerprint=fingerprint)

    def split_as(self, samples: Sequence[Sample]) -> Samples:
        """The same images in the splits that `samples` say, with the fingerprint of these."""
        return replace(self, samples=tuple(samples), fingerprint=_fingerprint(self.classes, samples, self.hashes))


def folder_samples(
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
    return samples_from(root, folder_rows(root, folders, exclude), fractions, seed, per_class)


def samples_from(
    root: Path, found: Found, fractions: Mapping[str, float], seed: int, per_class: int | None = None
) -> Samples:
    """The samples of what a reader found. Splits that are not given are cut from the train images, class by class, by
    `seed`: `fractions[split]` of them, or all but `per_class` images a class (see `cut_per_class`).

    Raises:
        UserFault: where there are no images, one class only, no train or test images, a class without a train image,
            or class names that are no text.
    """
    classes = tuple(sorted({row.name for row in found.rows}))
    _check_classes(root, classes, found)
    numbers = {name: number for number, name in enumerate(classes)}
    rows = _split(root, found, fractions, seed, per_class)
    samples = [Sample(row.path, numbers[row.name], row.split or "train") for row in rows]
    ordered = tuple(sorted(samples, key=lambda one: (SPLITS.index(one.split), one.path)))
    hashes = tuple(hashlib.sha256((root / sample.path).read_bytes()).hexdigest() for sample in ordered)
    table = Samples(root, classes, ordered, found.passed_over, _fingerprint(classes, ordered, hashes), hashes)
    _check_splits(table, found)
    return table


def _split(root: Path, found: Found, fractions: Mapping[str, float], seed: int, per_class: int | None) -> Sequence[Row]:
    if per_class is None:
        missing = {split: share for split, share in fractions.items() if split not in found.given and share > 0}
        return cut(found.rows, missing, seed)
    if own := sorted(found.given - {"train"}):
        got = f"{listing(own)} images of its own"
        fault = Fault(f"dataset.per_class={per_class}", got, "a data set without splits", "dataset.per_class=null")
        raise UserFault(f"the data set under {root} is split already.", [fault])
    return cut_per_class(found.rows, per_class, fractions["val"], seed)


def _fingerprint(classes: tuple[str, ...], samples: Sequence[Sample], hashes: Sequence[str]) -> str:
    """Changes with any image's bytes, path, label or split."""
    digest = hashlib.sha256(repr(classes).encode())
    for sample, content in zip(samples, hashes, strict=True):
        digest.update(os.fsencode(sample.path))  # a name need not be UTF-8
        digest.update(f"\0{sample.label}\0{sample.split}\0{content}\n".encode())
    return digest.hexdigest()[:16]


def _check_classes(root: Path, classes: Sequence[str], found: Found) -> None:
    if len(classes) < 2:
        got = f"{len(classes)} class{'' if len(classes) == 1 else 'es'} {listing(shown(classes))}".strip()
        raise UserFault(
            "the data set has too few classes.", [Fault(str(root), got, found.layout, "dataset.root=DIR of such data")]
        )
    if undecodable := [name for name in classes if shown([name]) != (name,)]:
        fault = Fault(str(root), listing(shown(undecodable)), "names in UTF-8: they stand in every table and figure")
        raise UserFault("class names that cannot be read.", [fault])
    learnable = {row.name for row in found.rows if row.split in (None, "train")}
    if absent := [name for name in classes if name not in learnable]:
        fault = Fault(str(root), f"no train image of {listing(absent)}", "every class among the train images")
        raise UserFault("classes that nothing can learn.", [fault])


def _check_splits(table: Samples, found: Found) -> None:
    counts = table.counts()
    empty = [split for split in ("train", "test") if not counts[split]]
    if empty:
        got = ", ".join(f"{count} {split}" for split, count in counts.items())
        fix = f"{found.more.format(split=empty[0])}, or dataset.fractions.{empty[0]}=0.15"
        raise UserFault(f"the data set has no {empty[0]} images.", [Fault(str(table.root), got, fix=fix)])
