"""Read a CSV file as spreadsheets and other programs write it: any delimiter, several encodings, records of lines."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from thaw.config.errors import Problem, UserError, find_closest_name, format_names
from thaw.data.folder_scan import has_image_suffix

DELIMITERS = (",", ";", "\t", "|")
DELIMITER_LINE = re.compile(r'"?sep=(?P<delimiter>.)"?\r?\n', re.IGNORECASE)  # Excel's own first line
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
ZIP_SIGNATURE = b"PK\x03\x04"
NUM_EXAMINED_BYTES = 1000
MAX_LISTED_LINES = 8


@dataclass(frozen=True)
class TableFormat:
    """Delimiter and encoding of a CSV file; None: as the file shows."""

    delimiter: str | None = None
    encoding: str | None = None


@dataclass(frozen=True)
class TableRole:
    """What a CSV file is for, in messages. `has_settings`: keys of `dataset` name the file, its columns and format."""

    description: str
    has_settings: bool = False


LABELS = TableRole("the CSV file with the labels", has_settings=True)


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a table: the number of its first line in the file, and its cells by column, stripped."""

    line: int
    cells: Mapping[str, str]


def read_table(
    file: Path,
    columns: Mapping[str, str],
    table_format: TableFormat = TableFormat(),
    role: TableRole = LABELS,
) -> list[Record]:
    """Read the rows of `file` below its header. `columns` maps keys of the recipe, such as path_column, to the columns
    that are needed. Blank lines are skipped.

    Raises:
        UserError: if the file cannot be read or decoded, lacks one of `columns` or has it twice, or if rows have fewer
            or more cells than the header; it names their lines.
    """
    text = _decode(file, _read_bytes(file, role), table_format.encoding, role)
    delimiter = table_format.delimiter
    if delimiter is None and (match := DELIMITER_LINE.match(text)):
        delimiter = match["delimiter"]
        text = f"\n{text[match.end() :]}"  # an empty line keeps the numbers of the others
    try:
        delimiter = delimiter or _detect_delimiter(text, columns.values())
        rows = list(_iter_rows(text, delimiter))
    except csv.Error as error:
        problem = Problem(str(file), str(error), "CSV, with quotes around cells that contain delimiters or line breaks")
        raise UserError(f"{role.description} cannot be read.", [problem]) from error
    header = _trim(rows[0][1]) if rows else []
    _check_columns(file, header, columns, role)
    _check_lengths(file, header, rows[1:])
    return [Record(line, dict(zip(header, cells, strict=False))) for line, cells in rows[1:]]


def _read_bytes(file: Path, role: TableRole) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{role.description} is missing.", [_build_missing_file_problem(file, role)]) from error
    except OSError as error:
        problem = Problem(str(file), error.strerror or str(error), "a CSV file")
        raise UserError(f"{role.description} cannot be read.", [problem]) from error


def _build_missing_file_problem(file: Path, role: TableRole) -> Problem:
    if not role.has_settings:
        return Problem(str(file), "no such file", "a CSV file")
    csv_files = sorted(path.name for path in file.parent.glob("*.csv")) if file.parent.is_dir() else []
    closest_file = find_closest_name(file.name, csv_files) or next(iter(csv_files), None)
    fix = f"dataset.file={closest_file}" if closest_file else "dataset.root=DIR of the folder that contains it"
    return Problem(str(file), "no such file", fix=fix)


def _decode(file: Path, content: bytes, encoding: str | None, role: TableRole) -> str:
    if content.startswith(ZIP_SIGNATURE):
        problem = Problem(str(file), "an Excel workbook, or another zip file", "CSV", "save it as CSV")
        raise UserError(f"{role.description} cannot be read.", [problem])
    encoding = encoding or _detect_encoding(content)
    # surrogateescape keeps the bytes of paths that are not UTF-8
    errors = "surrogateescape" if encoding == "utf-8" else "strict"
    try:
        return content.decode(encoding, errors).removeprefix("\ufeff")
    except (UnicodeError, LookupError) as error:
        fix = "dataset.encoding=NAME of its encoding, or save it as CSV UTF-8"
        fix = fix if role.has_settings else "save it as CSV UTF-8"
        problem = Problem(str(file), str(error), f"text in {encoding}", fix)
        raise UserError(f"{role.description} cannot be decoded.", [problem]) from error


def _detect_encoding(content: bytes) -> str:
    for mark, encoding in BYTE_ORDER_MARKS:
        if content.startswith(mark):
            return encoding
    examined = content[:NUM_EXAMINED_BYTES]
    for encoding, high_bytes in (("utf-16-le", examined[1::2]), ("utf-16-be", examined[::2])):
        if high_bytes.count(0) > len(high_bytes) / 2:
            return encoding
    return "utf-8"


def _detect_delimiter(text: str, columns: Collection[str]) -> str:
    """Return the delimiter with which the header has all `columns`, or else most cells."""
    headers = {delimiter: _read_header(text, delimiter) for delimiter in DELIMITERS}
    for delimiter, header in headers.items():
        if set(columns) <= set(header):
            return delimiter
    return max(headers, key=lambda delimiter: len(headers[delimiter]))


def _read_header(text: str, delimiter: str) -> list[str]:
    try:
        return next((cells for _, cells in _iter_rows(text, delimiter)), [])
    except csv.Error:  # quotes that end in the middle of a cell of another delimiter
        return []


def _iter_rows(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the first line and the stripped cells of each row that is not blank.

    Raises:
        csv.Error: with the number of the line.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    first_line = 1
    try:
        for cells in reader:
            stripped_cells = [cell.strip() for cell in cells]
            if any(stripped_cells):
                yield first_line, stripped_cells
            first_line = reader.line_num + 1
    except csv.Error as error:
        raise csv.Error(f"line {first_line}: {error}") from error


def _trim(cells: Sequence[str]) -> list[str]:
    """Return `cells` without empty ones at the end, which spreadsheets append."""
    trimmed = list(cells)
    while trimmed and not trimmed[-1]:
        trimmed.pop()
    return trimmed


def _check_columns(file: Path, header: Sequence[str], columns: Mapping[str, str], role: TableRole) -> None:
    missing_columns = {key: name for key, name in columns.items() if name not in header}
    problems = [
        Problem(f"column {name}", f"{header.count(name)} columns of this name", "one")
        for name in dict.fromkeys(columns.values())
        if header.count(name) > 1
    ]
    if missing_columns and (not role.has_settings or any(map(has_image_suffix, header))):
        fix = f"a first line with the names of the columns: {','.join(columns.values())}"
        problems.append(Problem("the first line", format_names(header), "the names of the columns", fix))
    elif missing_columns and len(header) == 1 and len(columns) > 1:
        valid = f"{format_names(columns.values())}, separated by comma, semicolon, tab or |"
        problems.append(Problem("the first line", header[0], valid, "dataset.delimiter=CHARACTER"))
    else:
        problems += [_build_missing_column_problem(key, name, header) for key, name in missing_columns.items()]
    if problems:
        raise UserError(f"{file} does not have these columns.", problems)


def _build_missing_column_problem(key: str, name: str, header: Sequence[str]) -> Problem:
    fix = f"dataset.{key}={find_closest_name(name, header) or 'COLUMN'}"
    return Problem(f"dataset.{key}={name}", "no such column", format_names(header) or "none: the file is empty", fix)


def _check_lengths(file: Path, header: Sequence[str], rows: Sequence[tuple[int, Sequence[str]]]) -> None:
    short_lines = [f"line {line}" for line, cells in rows if len(cells) < len(header)]
    long_lines = [f"line {line}" for line, cells in rows if any(cells[len(header) :])]
    quotes = "quotes around cells that contain the delimiter"
    problems = [
        Problem(f"{description}: {len(lines)}", format_names(lines, MAX_LISTED_LINES), f"{len(header)} cells", fix)
        for description, lines, fix in (
            ("rows with fewer cells than the header", short_lines, ""),
            ("rows with more cells than the header", long_lines, quotes),
        )
        if lines
    ]
    if problems:
        raise UserError(f"the rows of {file} do not match its header.", problems)
