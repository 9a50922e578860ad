"""Faults a person can act on: what was got, what is valid, the nearest match, the fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# Exit statuses: done; something failed; the user must change something; interrupted.
EXIT_SUCCESS, EXIT_FAILURE, EXIT_USER_ERROR, EXIT_INTERRUPTED = 0, 1, 2, 130


@dataclass(frozen=True)
class Problem:
    """One thing to change. `fix` is what to type or to do; empty strings are left out of the message."""

    subject: str
    got: str = ""
    valid: str = ""
    fix: str = ""

    def __str__(self) -> str:
        rows = [("got", self.got), ("valid", self.valid), ("fix", self.fix)]
        return "\n".join([f"  {self.subject}", *(f"      {label + ':':<7}{text}" for label, text in rows if text)])


class UserError(Exception):
    """Ends a command with exit status 2 and one message: the user must change something, thaw is not broken."""

    def __init__(self, headline: str, problems: Sequence[Problem] = ()) -> None:
        self.headline = headline
        self.problems = tuple(problems)
        super().__init__("\n".join([headline, *map(str, self.problems)]))

    def __reduce__(self) -> tuple[type[UserError], tuple[str, tuple[Problem, ...]]]:
        return type(self), (self.headline, self.problems)


def find_closest_name(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate most like `name`, or None where none is like it."""
    original_by_lowercase = {candidate.lower(): candidate for candidate in candidates}
    matches = difflib.get_close_matches(name.lower(), original_by_lowercase, n=1, cutoff=0.6)
    return original_by_lowercase[matches[0]] if matches else None


def format_names(names: Iterable[str], limit: int = 24) -> str:
    """Names in one line; past `limit` the rest is counted."""
    names = list(names)
    suffix = f", ... ({len(names) - limit} more)" if len(names) > limit else ""
    return ", ".join(names[:limit]) + suffix
