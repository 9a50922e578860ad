"""A data set as a table of samples, split once by seed, with a fingerprint that names exactly these images."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thaw.config.faults import Fault, UserFault, listing

SPLITS = ("train", "val", "test")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


@dataclass(frozen=True)
class Sample:
    """One labelled image; `path` is relative to the data set's root, with forward slashes."""

    path: str
    label: int
    split: str


@dataclass(frozen=True)
class Samples:
    """All samples, ordered by split and path; `passed_over` names the files beside them: no image, hidden, or in no
    class folder."""

    root: Path
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    passed_over: tuple[str, ...]
    fingerprint: str

    def of(self, split: str) -> np.ndarray:
        """Positions of the split's samples in `samples`, int64."""
        return np.array([index for index, sample in enumerate(self.samples) if sample.split == split], dtype=np.int64)

    def counts(self) -> dict[str, int]:
        return {split: sum(sample.split == split for sample in self.samples) for split in SPLITS}

    def labels(self) -> np.ndarray:
        """int64 [samples]."""
        return np.array([sample.label for sample in self.samples], dtype=np.int64)


def folder_samples(root: Path, folders: Mapping[str, str | None], fractions: Mapping[str, float], seed: int) -> Samples:
    """The samples of an image folder: `root/SPLIT/CLASS/...` where sub-folders of `folders` are there, else
    `root/CLASS/...`. Splits without a folder are cut from the train images, class by class, by `seed`.

    Raises:
        UserFault: where there are no images, one class only, no train or test images, or a class without a train image.
    """
    there = {split: name for split, name in folders.items() if name and (root / name).is_dir()}
    found = {split: _images_by_class(root / name) for split, name in there.items()} or {"train": _images_by_class(root)}
    classes = tuple(sorted({name for images in found.values() for name in images}))
    _check_classes(root, classes, found)
    samples = [
        Sample(path.relative_to(root).as_posix(), classes.index(name), split)
        for split, images in found.items()
        for name, paths in images.items()
        for path in paths
    ]
    missing = {split: share for split, share in fractions.items() if split not in found and share > 0}
    samples = _cut(samples, missing, seed)
    ordered = tuple(sorted(samples, key=lambda one: (SPLITS.index(one.split), one.path)))
    table = Samples(root, classes, ordered, _strays(root, there, ordered), _fingerprint(root, classes, ordered))
    _check_splits(table, fractions)
    return table


def _images_by_class(folder: Path) -> dict[str, list[Path]]:
    classes = sorted(one for one in folder.iterdir() if one.is_dir())
    images = {one.name: sorted(path for path in one.rglob("*") if _is_image(path, folder)) for one in classes}
    return {name: paths for name, paths in images.items() if paths}


def _is_image(path: Path, folder: Path) -> bool:
    """Not in a hidden folder either: `.ipynb_checkpoints` holds copies of images that may be in another split."""
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return path.suffix.lower() in SUFFIXES and path.is_file() and not hidden


def _strays(root: Path, there: Mapping[str, str], samples: Sequence[Sample]) -> tuple[str, ...]:
    searched = [root / name for name in there.values()] or [root]
    files = {path.relative_to(root).as_posix() for one in searched for path in one.rglob("*") if path.is_file()}
    return tuple(sorted(files - {sample.path for sample in samples}))


def _cut(samples: Sequence[Sample], shares: Mapping[str, float], seed: int) -> list[Sample]:
    """Moves `shares[split]` of each class's train samples into the split; at least one stays in train."""
    by_class: dict[int, list[Sample]] = {}
    for sample in sorted(samples, key=lambda one: one.path):
        by_class.setdefault(sample.label if sample.split == "train" else -1, []).append(sample)
    moved = by_class.pop(-1, [])
    for label, members in by_class.items():
        order = np.random.default_rng((seed, label)).permutation(len(members))
        shuffled = [members[position] for position in order]
        for split, share in shares.items():
            count = min(round(share * len(members)), len(shuffled) - 1)
            moved += [Sample(one.path, one.label, split) for one in shuffled[:count]]
            shuffled = shuffled[count:]
        moved += shuffled
    return moved


def _fingerprint(root: Path, classes: tuple[str, ...], samples: Sequence[Sample]) -> str:
    """Changes with any image's bytes, path, label or split."""
    digest = hashlib.sha256(repr(classes).encode())
    for sample in samples:
        content = hashlib.sha256((root / sample.path).read_bytes()).hexdigest()
        digest.update(f"{sample.path}\0{sample.label}\0{sample.split}\0{content}\n".encode())
    return digest.hexdigest()[:16]


def _check_classes(root: Path, classes: Sequence[str], found: Mapping[str, Mapping[str, list[Path]]]) -> None:
    layout = "train/CLASS/IMAGE and test/CLASS/IMAGE, or CLASS/IMAGE"
    if len(classes) < 2:
        got = f"{len(classes)} class{'' if len(classes) == 1 else 'es'} {listing(classes)}".strip()
        raise UserFault(
            "the data set has too few classes.", [Fault(str(root), got, layout, "dataset.root=DIR of such a folder")]
        )
    absent = [name for name in classes if not found.get("train", {}).get(name)]
    if absent:
        fault = Fault(str(root), f"no train image of {listing(absent)}", "every class among the train images")
        raise UserFault("classes that nothing can learn.", [fault])


def _check_splits(table: Samples, fractions: Mapping[str, float]) -> None:
    counts = table.counts()
    empty = [split for split in ("train", "test") if not counts[split]]
    if empty:
        got = ", ".join(f"{count} {split}" for split, count in counts.items())
        fix = f"a sub-folder {empty[0]}/, or dataset.fractions.{empty[0]}=0.15"
        raise UserFault(f"the data set has no {empty[0]} images.", [Fault(str(table.root), got, fix=fix)])
