"""Read the labeled images of a data set from an image folder or a CSV file, before missing splits are created."""

from __future__ import annotations

import csv
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from thaw.config.errors import Problem, UserError, find_closest_name, format_names

SPLITS = ("train", "val", "test")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
MAX_LISTED_NAMES = 5
Record = Mapping[str, str]


@dataclass(frozen=True)
class Row:
    """One labeled image; `path` is relative to the root of the data set, with forward slashes. If `split` is None, it
    is a train image from which missing splits are created."""

    path: str
    class_name: str
    split: str | None = None


@dataclass(frozen=True)
class ReaderResult:
    """All rows of a reader.

    Attributes:
        rows: the labeled images.
        provided_splits: the splits that the data set has itself, even if they are empty.
        ignored_files: printable paths of files that are in no row.
        layout: the layout that the reader expects, for error messages.
        missing_split_hint: how to add a split, for error messages, with the placeholder `{split}`.
    """

    rows: tuple[Row, ...]
    provided_splits: frozenset[str]
    ignored_files: tuple[str, ...]
    layout: str
    missing_split_hint: str


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a CSV file. The path of an image is FOLDER/PATH + suffix below the root."""

    path: str
    label: str
    split: str | None = None
    folder: str = ""
    suffix: str = ""


def escape_path(path: str) -> str:
    """Return `path` as printable text: bytes of a file name that are not UTF-8 are written as \\xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def escape_paths(paths: Iterable[str]) -> tuple[str, ...]:
    """Return `paths` as printable text, sorted."""
    return tuple(sorted(map(escape_path, paths)))


def is_image(path: Path, folder: Path) -> bool:
    """Return whether `path` has the suffix of an image and is not in a hidden folder below `folder`.

    Hidden folders such as `.ipynb_checkpoints` contain copies of images that may be in another split.
    """
    is_hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return path.suffix.lower() in SUFFIXES and path.is_file() and not is_hidden


def read_image_folder(root: Path, folders: Mapping[str, str | None], exclude: Collection[str] = ()) -> ReaderResult:
    """Read `root/SPLIT/CLASS/...` if any of the split folders `folders` exists, else `root/CLASS/...`.

    Classes in `exclude` are skipped and not reported as ignored files.
    """
    split_folders = {split: name for split, name in folders.items() if name and (root / name).is_dir()}
    searched_folders = [(split, root / name) for split, name in split_folders.items()] or [("train", root)]
    rows = [
        Row(path.relative_to(root).as_posix(), name, split if split_folders else None)
        for split, folder in searched_folders
        for name, path in _iter_images(folder, exclude)
    ]
    ignored_files = _list_files(root, [folder for _, folder in searched_folders], exclude) - {row.path for row in rows}
    layout, hint = "train/CLASS/IMAGE and test/CLASS/IMAGE, or CLASS/IMAGE", "a sub-folder {split}/"
    return ReaderResult(tuple(rows), frozenset(split_folders), escape_paths(ignored_files), layout, hint)


def _iter_images(folder: Path, exclude: Collection[str]) -> Iterator[tuple[str, Path]]:
    class_folders = sorted(path for path in folder.iterdir() if path.is_dir() and path.name not in exclude)
    for class_folder in class_folders:
        yield from ((class_folder.name, path) for path in sorted(class_folder.rglob("*")) if is_image(path, folder))


def _list_files(root: Path, folders: Collection[Path], exclude: Collection[str]) -> set[str]:
    return {
        path.relative_to(root).as_posix()
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] not in exclude
    }


def read_csv(root: Path, file: str, columns: Columns, unlabelled: str | None = None) -> ReaderResult:
    """Read the rows of `root/file`, a UTF-8 CSV file with a header line. Without a split column no row has a split.

    Images in the folder `unlabelled` are not reported as ignored files.

    Raises:
        UserError: if the file or a column is missing; or with the number and first names of missing images, empty
            paths and labels, unknown splits and duplicate paths.
    """
    rows = [_build_row(record, columns) for record in _read_records(root / file, columns)]
    if problems := list(_find_problems(root, file, rows, columns)):
        raise UserError(f"{root / file} does not match its images.", problems)
    provided_splits = frozenset(row.split for row in rows if row.split)
    ignored_files = escape_paths(_find_unlisted_images(root, columns.folder, rows, unlabelled))
    layout = f"two classes or more in column {columns.label} of {file}"
    hint = f"rows of {file} with {columns.split or 'a split column'}" + "={split}"
    return ReaderResult(tuple(rows), provided_splits, ignored_files, layout, hint)


def _read_records(file: Path, columns: Columns) -> Sequence[Record]:
    try:
        # surrogateescape keeps the bytes of paths that are not UTF-8
        with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            reader = csv.DictReader(stream, strict=True, restval="")
            _check_columns(file, reader.fieldnames or (), columns)
            return list(reader)
    except FileNotFoundError as error:
        raise UserError("the CSV file with the labels is missing.", [_build_missing_file_problem(file)]) from error
    except (csv.Error, IsADirectoryError) as error:
        problem = Problem(str(file), str(error), "CSV, UTF-8")
        raise UserError("the CSV file with the labels cannot be read.", [problem]) from error


def _build_missing_file_problem(file: Path) -> Problem:
    csv_files = sorted(path.name for path in file.parent.glob("*.csv")) if file.parent.is_dir() else []
    closest_file = find_closest_name(file.name, csv_files) or next(iter(csv_files), None)
    fix = f"dataset.file={closest_file}" if closest_file else "dataset.root=DIR of the folder that contains it"
    return Problem(str(file), "no such file", fix=fix)


def _check_columns(file: Path, header: Sequence[str], columns: Columns) -> None:
    column_settings = {"path_column": columns.path, "label_column": columns.label, "split_column": columns.split}
    problems = [
        Problem(
            f"dataset.{key}={name}",
            "no such column",
            format_names(header),
            f"dataset.{key}={find_closest_name(name, header) or 'COLUMN'}",
        )
        for key, name in column_settings.items()
        if name is not None and name not in header
    ]
    if problems:
        raise UserError(f"{file} does not have these columns.", problems)


def _build_row(record: Record, columns: Columns) -> Row:
    path = record[columns.path].strip()
    full_path = PurePosixPath(columns.folder, path + columns.suffix) if path else PurePosixPath()
    split = record[columns.split].strip() if columns.split else None
    return Row(str(full_path), record[columns.label].strip(), split)


def _find_problems(root: Path, file: str, rows: Sequence[Row], columns: Columns) -> Iterator[Problem]:
    rows_with_path = [row for row in rows if row.path != "."]  # an empty path becomes "."
    lines_without_path = [f"line {line}" for line, row in enumerate(rows, 2) if row.path == "."]
    paths_without_label = [row.path for row in rows_with_path if not row.class_name]
    unknown_splits = [
        f"{row.path} ({row.split!r})" for row in rows if row.split is not None and row.split not in SPLITS
    ]
    missing_files = [row.path for row in rows_with_path if not (root / row.path).is_file()]
    for description, names, expected, fix in (
        ("rows without a path", lines_without_path, f"rows of {file}", ""),
        ("rows without a label", paths_without_label, f"rows of {file}", ""),
        ("rows of an unknown split", unknown_splits, ", ".join(SPLITS), ""),
        ("duplicate paths", _find_repeated(row.path for row in rows_with_path), "one row per image", ""),
        ("missing images", missing_files, f"files below {root}", "dataset.folder=, dataset.suffix="),
    ):
        if names:
            listed_names = format_names(map(escape_path, names), MAX_LISTED_NAMES)
            yield Problem(f"{description}: {len(names)}", listed_names, expected, fix)


def _find_repeated(paths: Iterable[str]) -> list[str]:
    counts: dict[str, int] = {}
    for path in paths:
        counts[path] = counts.get(path, 0) + 1
    return [path for path, count in counts.items() if count > 1]


def _find_unlisted_images(root: Path, folder: str, rows: Sequence[Row], unlabelled: str | None) -> Collection[str]:
    """Return the images in the folder of the listed ones that are in no row. Other files are expected beside a CSV."""
    image_folder = root / folder
    if not image_folder.is_relative_to(root):  # an absolute path: the images are not below the root
        return ()
    unlabelled_folder = root / unlabelled if unlabelled else None
    images = [
        path.relative_to(root).as_posix()
        for path in image_folder.rglob("*")
        if is_image(path, image_folder) and not (unlabelled_folder and path.is_relative_to(unlabelled_folder))
    ]
    return set(images) - {row.path for row in rows}
