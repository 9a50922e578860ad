"""What a reader finds: labelled images by path, class and split, before missing splits are cut."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "val", "test")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


@dataclass(frozen=True)
class Row:
    """One labelled image; `path` is relative to the data set's root, with forward slashes. Without a `split` it is a
    train image, from which missing splits are cut."""

    path: str
    class_name: str
    split: str | None = None


@dataclass(frozen=True)
class ReaderResult:
    """All of a reader's rows. `given` are the splits that the data set has itself, be they empty; `passed_over` the
    files beside the rows; `layout` and `more` tell a user what the reader looks for, `more` with `{split}` in it."""

    rows: tuple[Row, ...]
    provided_splits: frozenset[str]
    ignored_files: tuple[str, ...]
    layout: str
    missing_split_hint: str


def read_image_folder(root: Path, folders: Mapping[str, str | None], exclude: Collection[str] = ()) -> ReaderResult:
    """`root/SPLIT/CLASS/...` where sub-folders of `folders` are there, else `root/CLASS/...`; without the classes of
    `exclude`, which are not passed over either."""
    split_folders = {split: name for split, name in folders.items() if name and (root / name).is_dir()}
    searched_folders = [(split, root / name) for split, name in split_folders.items()] or [("train", root)]
    rows = [
        Row(path.relative_to(root).as_posix(), name, split if split_folders else None)
        for split, folder in searched_folders
        for name, path in _iter_images(folder, exclude)
    ]
    ignored_files = _list_files(root, [folder for _, folder in searched_folders], exclude) - {row.path for row in rows}
    layout = "train/CLASS/IMAGE and test/CLASS/IMAGE, or CLASS/IMAGE"
    return ReaderResult(
        tuple(rows), frozenset(split_folders), escape_paths(ignored_files), layout, "a sub-folder {split}/"
    )


def _iter_images(folder: Path, exclude: Collection[str]) -> Iterator[tuple[str, Path]]:
    for class_folder in sorted(
        class_folder for class_folder in folder.iterdir() if class_folder.is_dir() and class_folder.name not in exclude
    ):
        yield from ((class_folder.name, path) for path in sorted(class_folder.rglob("*")) if is_image(path, folder))


def is_image(path: Path, folder: Path) -> bool:
    """By its suffix, and not in a hidden folder: `.ipynb_checkpoints` holds copies of images that may be in another
    split."""
    is_hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return path.suffix.lower() in SUFFIXES and path.is_file() and not is_hidden


def _list_files(root: Path, folders: Collection[Path], exclude: Collection[str]) -> set[str]:
    return {
        path.relative_to(root).as_posix()
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] not in exclude
    }


def escape_paths(paths: Collection[str]) -> tuple[str, ...]:
    """Sorted, and fit to be printed: bytes of a name that are no UTF-8 are written as \\xNN."""
    return tuple(sorted(os.fsencode(path).decode("utf-8", "backslashreplace") for path in paths))
