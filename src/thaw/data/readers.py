"""What the readers of image folders and CSV files return: the labeled images, before missing splits are created."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unicodedata import normalize

from thaw.data.sample_table import SampleTable

LINE_BREAK = re.compile(r"\s*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]\s*")


@dataclass(frozen=True)
class Correction:
    """A file of the user that changes the images.

    Attributes:
        count: number of images left out or with another label.
        sha256: of the file.
        paths: all its images in the data set, also those whose label it confirms.
    """

    count: int
    sha256: str
    paths: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return count and SHA-256, for records."""
        return {"count": self.count, "sha256": self.sha256}


@dataclass(frozen=True)
class ReaderResult:
    """All rows of a reader.

    Attributes:
        root: the folder that the paths are relative to.
        rows: the labeled images, sorted by path; without a split, where it is to be drawn.
        provided_splits: split -> where it is, of the splits that the data set has itself, even if they are empty.
        ignored_files: printable path -> reason, of files that are in no row; folders end with "/".
        layout: the layout that the reader expects, for error messages.
        missing_split_hint: how to add a split, for error messages, with the placeholder `{split}`.
        missing_class_hint: what to do about classes without train images, with the placeholder `{names}`.
        notes: how the data set was read, where that is not obvious.
        warnings: what is likely to be a mistake.
        uncorrected_rows: the rows before corrections, from which splits are drawn; None: there are no corrections.
        corrections: `excluded` and `relabeled` -> what `data.exclude` and `data.relabel` have changed.
        group_setting: the setting that says the group of each image, for messages; empty: there are no groups.
    """

    root: Path
    rows: SampleTable
    provided_splits: Mapping[str, str]
    ignored_files: Mapping[str, str]
    layout: str
    missing_split_hint: str
    missing_class_hint: str
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    uncorrected_rows: SampleTable | None = None
    corrections: Mapping[str, Correction] = field(default_factory=dict)
    group_setting: str = ""

    def change_rows(self, change: Callable[[SampleTable], SampleTable]) -> ReaderResult:
        """Return the result with changed rows, also those before corrections."""
        uncorrected_rows = None if self.uncorrected_rows is None else change(self.uncorrected_rows)
        return replace(self, rows=change(self.rows), uncorrected_rows=uncorrected_rows)

    @property
    def has_groups(self) -> bool:
        """Whether the images belong to groups."""
        return bool(self.group_setting)


def normalize_name(name: str) -> str:
    """Return `name` with composed characters (Unicode NFC): macOS may write the same name in decomposed ones."""
    return normalize("NFC", name)


def normalize_class_name(name: str) -> str:
    """Return a class name in composed characters and in one line: tables, figures and file formats contain it."""
    return LINE_BREAK.sub(" ", normalize_name(name))


def escape_path(path: str) -> str:
    """Return `path` as printable text: bytes of a file name that are not UTF-8 are written as \\xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def escape_paths(paths: Iterable[str]) -> tuple[str, ...]:
    """Return `paths` as printable text, sorted."""
    return tuple(sorted(map(escape_path, paths)))
