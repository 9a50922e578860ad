"""Regular expressions that may find the group of an image in its path."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

SEPARATORS = ("_", "-", r"\.", " ")
SEPARATOR, WORD = "[_. -]", "[^/_. -]"  # any of them
MAX_PARTS = 4
START = "(?:^|/)"  # of a file name
REST = r"[^/]*$"
DATES = (r"(\d{4}-\d\d-\d\d)", r"(?<!\d)((?:19|20)\d{6})(?!\d)")
NUMBER_NAME = re.compile(r"\d+")
MAX_DROPPED_DIGITS = 4


@dataclass(frozen=True)
class NamePattern:
    """A pattern and the groups that it finds: int64 [images], in the order of `names`."""

    pattern: str
    groups: np.ndarray
    names: tuple[str, ...]


def list_patterns(paths: Sequence[str]) -> list[NamePattern]:
    """Return patterns that match all `paths` and find different groups, neither one for all nor one for each."""
    results: dict[bytes, NamePattern] = {}
    for pattern in _iter_patterns(paths):
        matches = [re.search(pattern, path) for path in paths]
        values = [match[1] for match in matches if match and match[1]]
        if len(values) < len(paths) or not 1 < len(set(values)) < len(paths):
            continue
        names, first_positions, groups = np.unique(np.array(values), return_index=True, return_inverse=True)
        key = np.argsort(np.argsort(first_positions))[groups].tobytes()  # the same for the same groups
        results.setdefault(key, NamePattern(pattern, groups.astype(np.int64), tuple(map(str, names))))
    return list(results.values())


def _iter_patterns(paths: Sequence[str]) -> Iterator[str]:
    """Yield patterns for parts of the name, numbers in it, dates and folders, the simplest first.

    Those of the name are tried alone and with the folder: where images are numbered in each folder, the same part
    means different groups.
    """
    stems = [PurePosixPath(path).stem for path in paths]
    for part in [*_iter_name_parts(stems), *_iter_number_parts(stems)]:
        yield f"{START}({part[0]}){part[1]}"
        yield f"([^/]+/{part[0]}){part[1]}"
    for index in range(1, MAX_PARTS):
        for word, separator in [*((f"[^/{mark}]", mark) for mark in _find_separators(stems)), (WORD, SEPARATOR)]:
            times = f"{{{index}}}" if index > 1 else ""
            yield f"{START}(?:{word}*{separator}){times}({word}+){separator}{REST}"
    yield from DATES
    for depth in range(1, MAX_PARTS):
        yield f"{START}([^/]+)(?:/[^/]+){{{depth}}}$"


def _find_separators(stems: Sequence[str]) -> list[str]:
    """Return those of SEPARATORS that are in every name, for a regular expression."""
    return [separator for separator in SEPARATORS if all(separator[-1] in stem for stem in stems)]


def _iter_name_parts(stems: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the part of the name that is the group, and the pattern of its rest."""
    for separator in _find_separators(stems):
        yield f"[^/{separator}]+", separator + REST
        yield "[^/]+", f"{separator}[^/{separator}]*$"
    yield f"{WORD}+", SEPARATOR + REST
    yield r"[^/\d]+", rf"\d{REST}"  # george12.png
    yield r"[^/\d]*\d+", rf"[^/\d]{REST}"  # patient12frame3.png
    yield r"[^/]*[^/\d]", r"\d+\.[^/.]+$"  # patient12frame3.png


def _iter_number_parts(stems: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the first digits of names that start with a number of the same length, as counters and dates do."""
    numbers = [match[0] if (match := NUMBER_NAME.match(stem)) else "" for stem in stems]
    length = min(map(len, numbers), default=0)
    if length < 2 or length != max(map(len, numbers)):
        return
    for num_dropped in range(1, min(MAX_DROPPED_DIGITS, length - 1) + 1):
        yield _repeat_digit(length - num_dropped), rf"{_repeat_digit(num_dropped)}(?!\d){REST}"


def _repeat_digit(count: int) -> str:
    return r"\d" if count == 1 else rf"\d{{{count}}}"


def quote_override(pattern: str) -> str:
    """Return the word `dataset.group_pattern=...` to type in a shell; thaw quotes its value for Hydra."""
    return shlex.quote(f"dataset.group_pattern={pattern}")
