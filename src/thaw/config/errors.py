"""Problems that a user can solve: the value given, the valid values, the closest name and the fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from thaw.config.printable import escape_line, escape_text

# Exit statuses: success; something failed; the user must change something; interrupted; nobody reads the output.
EXIT_SUCCESS, EXIT_FAILURE, EXIT_USER_ERROR, EXIT_INTERRUPTED, EXIT_BROKEN_PIPE = 0, 1, 2, 130, 141


@dataclass(frozen=True)
class Problem:
    """One thing to change. `fix` says what to type or to do; empty strings do not appear in the message. A fix that
    repeats the subject, which is what was typed, is no fix and is left out.

    Text from outside is escaped in the message, and its further lines are indented: no name can fake a line.
    """

    subject: str
    got: str = ""
    valid: str = ""
    fix: str = ""

    def __post_init__(self) -> None:
        if self.fix == self.subject:
            object.__setattr__(self, "fix", "")

    def __str__(self) -> str:
        rows = [("got", shorten(self.got)), ("valid", shorten(self.valid)), ("fix", self.fix)]
        lines = [f"      {label + ':':<7}{_indent(escape_text(text))}" for label, text in rows if text]
        return "\n".join([f"  {escape_line(shorten(self.subject))}", *lines])


def _indent(text: str) -> str:
    return text.replace("\n", "\n" + " " * 13)


def shorten(text: str, max_length: int = 1000) -> str:
    """Return `text` without its middle if it is longer than `max_length`."""
    half = max_length // 2
    return text if len(text) <= max_length else f"{text[:half]} ... {text[-half:]}"


class UserError(Exception):
    """Report what the user must change; a command that raises it ends with exit status 2."""

    def __init__(self, headline: str, problems: Sequence[Problem] = ()) -> None:
        self.headline = headline
        self.problems = tuple(problems)
        super().__init__("\n".join([escape_text(headline), *map(str, self.problems)]))

    def __reduce__(self) -> tuple[type[UserError], tuple[str, tuple[Problem, ...]]]:
        return type(self), (self.headline, self.problems)


def find_closest_name(name: str, candidates: Iterable[str], min_similarity: float = 0.6) -> str | None:
    """Return the candidate most similar to `name`, or None if none is similar."""
    original_by_lowercase = {candidate.lower(): candidate for candidate in candidates}
    matches = difflib.get_close_matches(name.lower(), original_by_lowercase, n=1, cutoff=min_similarity)
    return original_by_lowercase[matches[0]] if matches else None


def format_names(names: Iterable[str], limit: int = 24) -> str:
    """Join names in one line, escaped; those after the first `limit` are only counted."""
    names = list(names)
    suffix = f", ... ({len(names) - limit} more)" if len(names) > limit else ""
    return ", ".join(map(escape_line, names[:limit])) + suffix


def format_count(count: int, noun: str) -> str:
    """Return `1 problem` or `3 problems`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def format_value(value: Any) -> str:
    """Return `value` as YAML and the command line write it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {format_value(entry)}' for key, entry in value.items())}}}"
    return f"[{', '.join(map(format_value, value))}]" if isinstance(value, list) else str(value)
