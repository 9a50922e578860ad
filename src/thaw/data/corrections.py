"""Correct a data set by two CSV files of the user: images to leave out, and images with another label."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from thaw.config.errors import Problem, UserError, find_closest_name, format_count, format_names
from thaw.config.schema import DataConfig
from thaw.data.csv_reader import iter_path_spellings
from thaw.data.csv_table import Record, TableRole, read_table
from thaw.data.readers import Correction, ReaderResult, escape_path, normalize_class_name
from thaw.data.sample_table import PathTable, SampleTable
from thaw.system.csv_files import unquote_formula
from thaw.system.files import compute_sha256
from thaw.system.portable import shorten_path

MAX_LISTED_NAMES = 5
LEFT_OUT = "left out by data.exclude"


@dataclass(frozen=True)
class _CorrectionFile:
    """A file of the user: its key and path as the user wrote them, its rows, and the position in the data set of each;
    None where the data set has no such image. `paths` are those of the data set."""

    key: str
    name: str
    digest: str
    records: list[Record]
    positions: list[int | None]
    paths: PathTable

    @property
    def setting(self) -> str:
        """The override that names the file."""
        return f"data.{self.key}={self.name}"

    @property
    def known_records(self) -> list[tuple[Record, int]]:
        """The rows whose image the data set has, with its position."""
        return [(record, at) for record, at in zip(self.records, self.positions, strict=True) if at is not None]

    @property
    def known_paths(self) -> tuple[str, ...]:
        """The paths of these images, each once."""
        return tuple(dict.fromkeys(self.paths[position] for _, position in self.known_records))


def apply_corrections(
    reader_result: ReaderResult, settings: DataConfig, *, is_evaluation: bool = False
) -> ReaderResult:
    """Leave out the images that the file `data.exclude` names, and give those of `data.relabel` its labels.

    Paths are those of the rows, as `predictions.csv` has them. An evaluation may have other images than the training,
    and other places: then a file that is missing and paths without an image change nothing.

    Raises:
        UserError: if a file cannot be read; with the number and the first names of paths that the data set does not
            have, of empty or contradictory labels, of unknown classes; or if a class has no images left.
    """
    exclusion = _read_file("exclude", settings.exclude, ("path",), reader_result, is_evaluation)
    relabeling = _read_file("relabel", settings.relabel, ("path", "label"), reader_result, is_evaluation)
    files = [file for file in (exclusion, relabeling) if file is not None]
    problems = [] if is_evaluation else [problem for file in files for problem in _find_unknown_paths(file)]
    labels = dict[int, str]()
    if relabeling is not None:
        classes = set(reader_result.rows.list_present_classes())
        problems += _find_label_problems(relabeling, classes, accepts_any=is_evaluation)
        labels = {position: _parse_label(record, classes) for record, position in relabeling.known_records}
    if problems:
        raise UserError(f"the corrections do not match the data set under {reader_result.root}.", problems)
    excluded = {position for _, position in exclusion.known_records} if exclusion else set[int]()
    corrected = _correct_rows(reader_result, excluded, labels, files)
    if exclusion is not None and not is_evaluation:
        _check_remaining_classes(reader_result.rows, corrected.rows, labels, exclusion)
    return corrected


def describe_missing_files(settings: DataConfig) -> Iterator[str]:
    """Yield a note for each file of corrections that is not there, as may happen to a network of another machine."""
    for key, name in (("exclude", settings.exclude), ("relabel", settings.relabel)):
        if name is not None and not Path(name).expanduser().is_file():
            yield f"data.{key}={name}: no such file, so the images are not corrected by it"


def _read_file(
    key: str, name: str | None, columns: Sequence[str], reader_result: ReaderResult, is_evaluation: bool
) -> _CorrectionFile | None:
    """Return the file `name`; None if there is none, or if it is missing in an evaluation."""
    if name is None:
        return None
    file = Path(name).expanduser()
    if is_evaluation and not file.is_file():
        return None
    records = read_table(file, {column: column for column in columns}, role=TableRole(f"data.{key}={name}"))
    root, paths = reader_result.root, reader_result.rows.paths
    bases, known_positions = (root.absolute(), root.resolve()), {path: position for position, path in enumerate(paths)}
    positions = [_find_position(record.cells["path"], known_positions, bases) for record in records]
    return _CorrectionFile(key, name, compute_sha256(file), records, positions, paths)


def _find_position(text: str, positions: Mapping[str, int], bases: Sequence[Path]) -> int | None:
    """Return the position of the path `text`, which a spreadsheet or Windows may have written otherwise."""
    for spelling in dict.fromkeys([text, unquote_formula(text)]):
        for path in iter_path_spellings(bases, "", spelling):
            if path in positions:
                return positions[path]
    return None


def _find_unknown_paths(file: _CorrectionFile) -> Iterator[Problem]:
    unknown_paths = [
        record.cells["path"] or f"line {record.line}"
        for record, position in zip(file.records, file.positions, strict=True)
        if position is None
    ]
    if unknown_paths:
        names = format_names(map(escape_path, unknown_paths), MAX_LISTED_NAMES)
        valid = "paths below the root of the data set, as predictions.csv has them"
        yield Problem(f"{file.setting}: paths without an image: {len(unknown_paths)}", names, valid)


def _find_label_problems(file: _CorrectionFile, classes: Iterable[str], accepts_any: bool) -> Iterator[Problem]:
    known_classes = set(classes)
    labels_by_position, unknown_labels = dict[int, set[str]](), dict[str, None]()
    for record, position in file.known_records:
        label = _parse_label(record, known_classes)
        labels_by_position.setdefault(position, set()).add(label)
        if label and label not in known_classes and not accepts_any:
            unknown_labels[label] = None
    empty = [file.paths[position] for position, labels in labels_by_position.items() if "" in labels]
    contradictory = [file.paths[position] for position, labels in labels_by_position.items() if len(labels) > 1]
    for description, paths in (("no label", empty), ("several labels", contradictory)):
        if paths:
            names = format_names(map(escape_path, paths), MAX_LISTED_NAMES)
            yield Problem(f"{file.setting}: images with {description}: {len(paths)}", names, "one label for each image")
    if unknown_labels:
        closest = find_closest_name(next(iter(unknown_labels)), known_classes)
        names = format_names(map(escape_path, unknown_labels), MAX_LISTED_NAMES)
        subject = f"{file.setting}: labels that are no class of the data set: {len(unknown_labels)}"
        yield Problem(
            subject, names, format_names(sorted(known_classes)), f"{closest} in {file.name}" if closest else ""
        )


def _parse_label(record: Record, classes: Iterable[str]) -> str:
    label = normalize_class_name(record.cells["label"])
    unquoted_label = unquote_formula(label)
    return unquoted_label if label not in classes and unquoted_label in classes else label


def _correct_rows(
    reader_result: ReaderResult, excluded: set[int], labels: Mapping[int, str], files: Sequence[_CorrectionFile]
) -> ReaderResult:
    """Return the rows without those at `excluded`, with the classes of `labels`, and what was changed."""
    if not files:
        return reader_result
    before = reader_result.rows
    relabeled = _relabel(before, labels)
    rows = relabeled.subset(np.setdiff1d(np.arange(len(before)), list(excluded)))
    num_relabeled = sum(name != before.classes[before.labels[at]] for at, name in labels.items() if at not in excluded)
    counts = {"exclude": len(excluded), "relabel": num_relabeled}
    names = {"exclude": "excluded", "relabel": "relabeled"}
    ignored_files = {escape_path(before.paths[position]): LEFT_OUT for position in excluded}
    notes = [f"{names[file.key]} by {file.setting}: {format_count(counts[file.key], 'image')}" for file in files]
    setting = files[0].setting.replace("{", "{{").replace("}", "}}")  # hints have placeholders
    hint = f", or fewer images in {setting}" if excluded else ""
    return replace(
        reader_result,
        rows=rows,
        uncorrected_rows=before,
        ignored_files={**reader_result.ignored_files, **ignored_files},
        notes=(*reader_result.notes, *notes),
        corrections={names[file.key]: Correction(counts[file.key], file.digest, file.known_paths) for file in files},
        missing_split_hint=reader_result.missing_split_hint + hint,
        missing_class_hint=reader_result.missing_class_hint + hint,
    )


def _relabel(rows: SampleTable, labels: Mapping[int, str]) -> SampleTable:
    """Return the rows with the classes of `labels`, position -> class name."""
    relabeled = rows.replace_classes(sorted({*rows.classes, *labels.values()}))
    label_by_name, column = {name: label for label, name in enumerate(relabeled.classes)}, relabeled.labels.copy()
    column[list(labels)] = [label_by_name[name] for name in labels.values()]
    return replace(relabeled, labels=column)


def _check_remaining_classes(
    before: SampleTable, after: SampleTable, labels: Mapping[int, str], exclusion: _CorrectionFile
) -> None:
    """Raise UserError if an image of a class is left out and no image of the class is left."""
    excluded = {position for _, position in exclusion.known_records} - labels.keys()
    excluded_labels = np.unique(before.labels[sorted(excluded)]).tolist()
    lost_classes = sorted({before.classes[label] for label in excluded_labels} - {*after.list_present_classes()})
    if lost_classes:
        names = format_names(map(escape_path, lost_classes), MAX_LISTED_NAMES)
        got = f"it leaves no image of {names}"
        fix = f"leave some of its images out of {shorten_path(Path(exclusion.name).expanduser())}"
        raise UserError("a class has no images left.", [Problem(exclusion.setting, got, "an image of each class", fix)])
