"""CSV files of paths and labels -> rows. Everything that is wrong with a file is told at once."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from thaw.config.faults import Fault, UserFault, listing, nearest
from thaw.data.rows import SPLITS, Found, Row, is_image, shown

MOST_NAMED = 5
Record = Mapping[str, str]


@dataclass(frozen=True)
class Columns:
    """Which columns hold what. An image lies at FOLDER/PATH + suffix below the root."""

    path: str
    label: str
    split: str | None = None
    folder: str = ""
    suffix: str = ""


def csv_rows(root: Path, file: str, columns: Columns, unlabelled: str | None = None) -> Found:
    """The rows of `root/file`, UTF-8 with a header line. Without a split column no row has a split. Images in the
    folder `unlabelled` are meant to be in no row.

    Raises:
        UserFault: where the file or a column is missing; or with the counts and first names of missing images, empty
            paths and labels, unknown splits and paths that stand there twice.
    """
    records = _records(root / file, columns)
    rows = [_row(record, columns) for record in records]
    if faults := list(_faults(root, file, rows, columns)):
        raise UserFault(f"{root / file} does not fit its images.", faults)
    given = frozenset(row.split for row in rows if row.split)
    layout = f"two classes or more in column {columns.label} of {file}"
    more = f"rows of {file} with {columns.split or 'a split column'}" + "={split}"
    return Found(tuple(rows), given, shown(_unlisted(root, columns.folder, rows, unlabelled)), layout, more)


def _records(file: Path, columns: Columns) -> Sequence[Record]:
    try:
        # surrogateescape: a path need not be UTF-8, and the bytes of its name come back as they were
        with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            reader = csv.DictReader(stream, strict=True, restval="")
            _check_columns(file, reader.fieldnames or (), columns)
            return list(reader)
    except FileNotFoundError as error:
        there = sorted(one.name for one in file.parent.glob("*.csv")) if file.parent.is_dir() else []
        near = nearest(file.name, there) or next(iter(there), None)
        fix = f"dataset.file={near}" if near else "dataset.root=DIR of the folder that holds it"
        raise UserFault("the table of labels is missing.", [Fault(str(file), "no such file", fix=fix)]) from error
    except (csv.Error, IsADirectoryError) as error:
        raise UserFault("the table of labels cannot be read.", [Fault(str(file), str(error), "CSV, UTF-8")]) from error


def _check_columns(file: Path, header: Sequence[str], columns: Columns) -> None:
    wanted = {"path_column": columns.path, "label_column": columns.label, "split_column": columns.split}
    faults = [
        Fault(
            f"dataset.{key}={name}",
            "no such column",
            listing(header),
            f"dataset.{key}={nearest(name, header) or 'COLUMN'}",
        )
        for key, name in wanted.items()
        if name is not None and name not in header
    ]
    if faults:
        raise UserFault(f"{file} has other columns.", faults)


def _row(record: Record, columns: Columns) -> Row:
    path = record[columns.path].strip()
    whole = PurePosixPath(columns.folder, path + columns.suffix) if path else PurePosixPath()
    split = record[columns.split].strip() if columns.split else None
    return Row(str(whole), record[columns.label].strip(), split)


def _faults(root: Path, file: str, rows: Sequence[Row], columns: Columns) -> Iterable[Fault]:
    valid = f"rows of {file}"
    named = [row for row in rows if row.path != "."]  # "." is what becomes of an empty path
    for what, fit, names in (
        ("rows without a path", valid, [f"line {line}" for line, row in enumerate(rows, 2) if row.path == "."]),
        ("rows without a label", valid, [row.path for row in named if not row.name]),
        ("rows of an unknown split", ", ".join(SPLITS), _unknown_splits(rows)),
        ("paths that stand there twice", "one row an image", _twice(row.path for row in named)),
        ("images that are missing", f"files below {root}", _missing(root, named)),
    ):
        if names:
            fix = "dataset.folder=, dataset.suffix=" if what == "images that are missing" else ""
            yield Fault(f"{what}: {len(names)}", listing(shown_in_order(names), MOST_NAMED), fit, fix)


def shown_in_order(names: Sequence[str]) -> list[str]:
    """The names as the file has them, fit to be printed."""
    return [shown([name])[0] for name in names[: MOST_NAMED + 1]] + list(names[MOST_NAMED + 1 :])


def _unknown_splits(rows: Sequence[Row]) -> list[str]:
    return [f"{row.path} ({row.split!r})" for row in rows if row.split is not None and row.split not in SPLITS]


def _twice(paths: Iterable[str]) -> list[str]:
    counts: dict[str, int] = {}
    for path in paths:
        counts[path] = counts.get(path, 0) + 1
    return [path for path, count in counts.items() if count > 1]


def _missing(root: Path, rows: Sequence[Row]) -> list[str]:
    return [row.path for row in rows if not (root / row.path).is_file()]


def _unlisted(root: Path, folder: str, rows: Sequence[Row], unlabelled: str | None) -> Collection[str]:
    """Images in the folder of the listed ones that no row names. Other files lie beside a table by right."""
    searched = root / folder
    if not searched.is_relative_to(root):  # an absolute path: the data set does not lie in one place
        return ()
    images = [path for path in searched.rglob("*") if is_image(path, searched)]
    apart = root / unlabelled if unlabelled else None
    unmeant = (path for path in images if apart is None or not path.is_relative_to(apart))
    return {path.relative_to(root).as_posix() for path in unmeant} - {row.path for row in rows}
