"""What a reader finds: labelled images by path, class and split, before missing splits are cut."""

from __future__ import annotations

import csv
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from thaw.config.errors import Problem, UserError, find_closest_name, format_names

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


MAX_LISTED_NAMES = 5
Record = Mapping[str, str]


@dataclass(frozen=True)
class Columns:
    """Which columns hold what. An image lies at FOLDER/PATH + suffix below the root."""

    path: str
    label: str
    split: str | None = None
    folder: str = ""
    suffix: str = ""


def read_csv(root: Path, file: str, columns: Columns, unlabelled: str | None = None) -> ReaderResult:
    """The rows of `root/file`, UTF-8 with a header line. Without a split column no row has a split. Images in the
    folder `unlabelled` are meant to be in no row.

    Raises:
        UserFault: where the file or a column is missing; or with the counts and first names of missing images, empty
            paths and labels, unknown splits and paths that stand there twice.
    """
    records = _read_records(root / file, columns)
    rows = [_build_row(record, columns) for record in records]
    if problems := list(_find_problems(root, file, rows, columns)):
        raise UserError(f"{root / file} does not fit its images.", problems)
    provided_splits = frozenset(row.split for row in rows if row.split)
    layout = f"two classes or more in column {columns.label} of {file}"
    missing_split_hint = f"rows of {file} with {columns.split or 'a split column'}" + "={split}"
    return ReaderResult(
        tuple(rows),
        provided_splits,
        escape_paths(_find_unlisted_images(root, columns.folder, rows, unlabelled)),
        layout,
        missing_split_hint,
    )


def _read_records(file: Path, columns: Columns) -> Sequence[Record]:
    try:
        # surrogateescape: a path need not be UTF-8, and the bytes of its name come back as they were
        with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            reader = csv.DictReader(stream, strict=True, restval="")
            _check_columns(file, reader.fieldnames or (), columns)
            return list(reader)
    except FileNotFoundError as error:
        csv_files = sorted(path.name for path in file.parent.glob("*.csv")) if file.parent.is_dir() else []
        closest_file = find_closest_name(file.name, csv_files) or next(iter(csv_files), None)
        fix = f"dataset.file={closest_file}" if closest_file else "dataset.root=DIR of the folder that holds it"
        raise UserError("the table of labels is missing.", [Problem(str(file), "no such file", fix=fix)]) from error
    except (csv.Error, IsADirectoryError) as error:
        raise UserError(
            "the table of labels cannot be read.", [Problem(str(file), str(error), "CSV, UTF-8")]
        ) from error


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
        raise UserError(f"{file} has other columns.", problems)


def _build_row(record: Record, columns: Columns) -> Row:
    path = record[columns.path].strip()
    full_path = PurePosixPath(columns.folder, path + columns.suffix) if path else PurePosixPath()
    split = record[columns.split].strip() if columns.split else None
    return Row(str(full_path), record[columns.label].strip(), split)


def _find_problems(root: Path, file: str, rows: Sequence[Row], columns: Columns) -> Iterable[Problem]:
    expected_rows = f"rows of {file}"
    rows_with_path = [row for row in rows if row.path != "."]  # "." is what becomes of an empty path
    for description, expected, names in (
        ("rows without a path", expected_rows, [f"line {line}" for line, row in enumerate(rows, 2) if row.path == "."]),
        ("rows without a label", expected_rows, [row.path for row in rows_with_path if not row.class_name]),
        ("rows of an unknown split", ", ".join(SPLITS), _list_unknown_splits(rows)),
        ("paths that stand there twice", "one row an image", _find_repeated(row.path for row in rows_with_path)),
        ("images that are missing", f"files below {root}", _find_missing_files(root, rows_with_path)),
    ):
        if names:
            fix = "dataset.folder=, dataset.suffix=" if description == "images that are missing" else ""
            yield Problem(
                f"{description}: {len(names)}", format_names(escape_in_order(names), MAX_LISTED_NAMES), expected, fix
            )


def escape_in_order(names: Sequence[str]) -> list[str]:
    """The names as the file has them, fit to be printed."""
    return [escape_paths([name])[0] for name in names[: MAX_LISTED_NAMES + 1]] + list(names[MAX_LISTED_NAMES + 1 :])


def _list_unknown_splits(rows: Sequence[Row]) -> list[str]:
    return [f"{row.path} ({row.split!r})" for row in rows if row.split is not None and row.split not in SPLITS]


def _find_repeated(paths: Iterable[str]) -> list[str]:
    counts: dict[str, int] = {}
    for path in paths:
        counts[path] = counts.get(path, 0) + 1
    return [path for path, count in counts.items() if count > 1]


def _find_missing_files(root: Path, rows: Sequence[Row]) -> list[str]:
    return [row.path for row in rows if not (root / row.path).is_file()]


def _find_unlisted_images(root: Path, folder: str, rows: Sequence[Row], unlabelled: str | None) -> Collection[str]:
    """Images in the folder of the listed ones that no row names. Other files lie beside a table by right."""
    image_folder = root / folder
    if not image_folder.is_relative_to(root):  # an absolute path: the data set does not lie in one place
        return ()
    images = [path for path in image_folder.rglob("*") if is_image(path, image_folder)]
    unlabelled_folder = root / unlabelled if unlabelled else None
    labelled_images = (
        path for path in images if unlabelled_folder is None or not path.is_relative_to(unlabelled_folder)
    )
    return {path.relative_to(root).as_posix() for path in labelled_images} - {row.path for row in rows}
