"""Read a CSV file that lists images with their labels."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath, PureWindowsPath
from unicodedata import normalize

from thaw.config.errors import Problem, UserError, format_names
from thaw.config.printable import escape_line
from thaw.data.csv_table import Record, TableFormat, read_table
from thaw.data.folder_layout import SPLIT_NAMES, parse_split_name
from thaw.data.folder_scan import find_name_reason, scan_folder
from thaw.data.readers import ReaderResult, escape_path, normalize_class_name
from thaw.data.sample_table import SPLITS, UNDRAWN_SPLIT, build_table

MAX_LISTED_NAMES = 5


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a CSV file. The path of an image is FOLDER/PATH + suffix below the root."""

    path: str
    label: str
    split: str | None = None
    folder: str = ""
    suffix: str = ""
    group: str | None = None


@dataclass(frozen=True, slots=True)
class _CsvRow:
    """A row with the number of its line, its label, split and group as they were written, and whether its image
    exists."""

    line: int
    path: str
    label: str
    split: str | None
    has_image: bool
    group: str | None = None


def read_csv(
    root: Path,
    file: str,
    columns: Columns,
    unlabelled: str | None = None,
    table_format: TableFormat = TableFormat(),  # noqa: B008 - immutable
) -> ReaderResult:
    """Read the rows of `root/file`, a CSV file with a header line. Without a split column no row has a split.

    Images in the folder `unlabelled` are not reported as ignored files.

    Raises:
        UserError: if the file or a column is missing, or rows have too few or too many cells; or with the number and
            first names of missing images, empty paths and labels, unknown splits and duplicate paths.
    """
    data_folder = _find_data_folder(root, file)
    settings = {
        "path_column": columns.path,
        "label_column": columns.label,
        "split_column": columns.split,
        "group_column": columns.group,
    }
    needed_columns = {key: name for key, name in settings.items() if name is not None}
    records = read_table(data_folder / file, needed_columns, table_format)
    bases = (data_folder.absolute(), data_folder.resolve())
    csv_rows = [_read_row(data_folder, bases, record, columns) for record in records]
    if problems := list(_find_problems(data_folder, file, csv_rows)):
        raise UserError(f"{data_folder / file} does not match its images.", problems)
    rows = build_table(
        [row.path for row in csv_rows],
        [normalize_class_name(row.label) for row in csv_rows],
        [_parse_split(row) or UNDRAWN_SPLIT for row in csv_rows],
        [row.group for row in csv_rows],
    )
    ignored_paths = _find_unlisted_images(data_folder, columns.folder, rows.paths, unlabelled)
    notes = [f"read from {data_folder.relative_to(root)}/, the only folder"] if data_folder != root else []
    return ReaderResult(
        data_folder,
        rows,
        {split: f"column {columns.split}" for split in SPLITS if rows.select_splits(split).any()},
        {escape_line(path): f"image in no row of {file}" for path in sorted(ignored_paths)},
        f"two classes or more in column {columns.label} of {file}",
        f"rows of {file} with {columns.split or 'a split column'}" + "={split}",
        f"train rows of {{names}} in {file}",
        (*notes, *_describe_changes(csv_rows)),
        group_setting=f"dataset.group_column={columns.group}" if columns.group else "",
    )


def _find_data_folder(root: Path, file: str) -> Path:
    """Return `root`, or the only folder in it if that contains `file`: archives often have one on top."""
    folder = root
    while folder.is_dir() and not (folder / file).exists():
        folders = [path for path in folder.iterdir() if path.is_dir() and not find_name_reason(path.name)]
        if len(folders) != 1:
            return root
        (folder,) = folders
    return folder if folder.is_dir() else root


def _read_row(root: Path, bases: Sequence[Path], record: Record, columns: Columns) -> _CsvRow:
    """Read a row. `bases` are the absolute paths of `root`, which absolute paths of images may begin with."""
    text, label = record.cells[columns.path], record.cells[columns.label]
    split = record.cells[columns.split] if columns.split else None
    group = normalize_class_name(record.cells[columns.group]) if columns.group else None
    if not text:
        return _CsvRow(record.line, "", label, split, False)
    paths = iter_path_spellings(bases, columns.folder, text + columns.suffix)
    written_path = next(paths)
    for path in chain([written_path], paths):
        if os.path.isfile(os.path.join(root, path)):  # noqa: PTH113, PTH118 - Path is five times slower
            return _CsvRow(record.line, path, label, split, True, group)
    return _CsvRow(record.line, written_path, label, split, False, group)


def iter_path_spellings(bases: Sequence[Path], folder: str, text: str) -> Iterator[str]:
    """Yield the paths that `text` may mean, relative to the root if they are below it: as it is written, with slashes
    for the backslashes of Windows, and with characters composed as on the disk."""
    texts = [text, *([text.replace("\\", "/")] if "\\" in text else [])]
    for written_text in (*texts, *(normalize(form, text) for form in ("NFC", "NFD") for text in texts)):
        path = PurePosixPath(folder, written_text)
        if ".." in path.parts:
            path = PurePosixPath(posixpath.normpath(path))
        base = next((base for base in bases if path.is_relative_to(base)), None) if path.is_absolute() else None
        yield str(path.relative_to(base) if base else path)


def _parse_split(row: _CsvRow) -> str | None:
    return None if row.split is None else parse_split_name(row.split)


def _find_problems(root: Path, file: str, rows: Sequence[_CsvRow]) -> Iterator[Problem]:
    missing_rows = [row for row in rows if row.path and not row.has_image]
    absolute_paths = [row.path for row in missing_rows if _is_absolute(row.path)]
    missing_paths = [row.path for row in missing_rows if not _is_absolute(row.path)]
    undecoded_labels = [f"{escape_path(row.label)} (line {row.line})" for row in rows if not _is_unicode(row.label)]
    has_undecoded_path = not all(_is_unicode(path) for path in missing_paths)
    encoding_fix = "dataset.encoding=cp1252, if a Windows program wrote the file; or save it as CSV UTF-8"
    for description, names, expected, fix in (
        ("rows without a path", [f"line {row.line}" for row in rows if not row.path], f"rows of {file}", ""),
        ("rows without a label", [row.path for row in rows if row.path and not row.label], f"rows of {file}", ""),
        ("labels that are not UTF-8", undecoded_labels, "UTF-8", encoding_fix),
        ("rows of an unknown split", list(_list_unknown_splits(rows)), ", ".join(SPLITS), ""),
        ("duplicate paths", _find_repeated(row.path for row in rows if row.path), "one row per image", ""),
        ("absolute paths without a file", absolute_paths, f"paths below {root}", "paths relative to dataset.root"),
        (
            "missing images",
            missing_paths,
            f"files below {root}",
            encoding_fix if has_undecoded_path else "dataset.folder=, dataset.suffix=",
        ),
    ):
        if names:
            listed_names = format_names(map(escape_path, names), MAX_LISTED_NAMES)
            yield Problem(f"{description}: {len(names)}", listed_names, expected, fix)


def _is_absolute(path: str) -> bool:
    return path.startswith("/") or bool(PureWindowsPath(path).drive)


def _is_unicode(text: str) -> bool:
    return escape_path(text) == text


def _list_unknown_splits(rows: Iterable[_CsvRow]) -> Iterator[str]:
    for row in rows:
        if row.split is not None and parse_split_name(row.split) is None:
            yield f"{row.path} ({row.split!r})"


def _find_repeated(paths: Iterable[str]) -> list[str]:
    counts: dict[str, int] = {}
    for path in paths:
        counts[path] = counts.get(path, 0) + 1
    return [path for path, count in counts.items() if count > 1]


def _find_unlisted_images(
    root: Path, folder: str, listed_paths: Iterable[str], unlabelled: str | None
) -> Collection[str]:
    """Return the images in the folder of the listed ones that are in no row. Other files are expected beside a CSV."""
    image_folder = root / folder
    if not image_folder.is_relative_to(root):  # an absolute path: the images are not below the root
        return ()
    relative_folder = image_folder.relative_to(root).as_posix()
    prefix = "" if relative_folder == "." else f"{relative_folder}/"
    images = {f"{prefix}{path}" for path in scan_folder(image_folder).top.iter_images()}
    unlabelled_prefix = f"{PurePosixPath(unlabelled)}/" if unlabelled else None
    unlabelled_images = {path for path in images if unlabelled_prefix and path.startswith(unlabelled_prefix)}
    return images - unlabelled_images - {*listed_paths}


def _describe_changes(rows: Sequence[_CsvRow]) -> Iterator[str]:
    """Yield what a person may not expect: other names of splits, labels that were changed, images elsewhere."""
    other_names = sorted({row.split for row in rows if row.split} - set(SPLIT_NAMES))
    if other_names:
        yield f"splits: {', '.join(f'{name} -> {parse_split_name(name)}' for name in other_names)}"
    changed_rows = [row for row in rows if normalize_class_name(row.label) != row.label]
    if changed_rows:
        lines = format_names([f"line {row.line}" for row in changed_rows], MAX_LISTED_NAMES)
        yield f"labels in one line and in composed characters (Unicode NFC): {len(changed_rows)} ({lines})"
    num_outside = sum(row.path.startswith("/") for row in rows)
    if num_outside:
        yield f"images that are not below the root: {num_outside}"
