"""What a check has found: rows of audit.csv, pictures for the page, and what to say on the screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from thaw.data.samples import Samples

MAX_EXHIBITS = 24  # pictures or groups of pictures of a check on the page; the others are in audit.csv
COLUMNS = (
    *("check", "path", "other_path", "split", "other_split", "label", "other_label", "suggested_label", "score"),
    "note",
)


@dataclass(frozen=True)
class Finding:
    """A row of audit.csv: something about an image, a pair of images or classes, or the whole data set.

    Attributes:
        check: the key of the check.
        path, split, label: of the image, empty if it is about no image.
        other_path, other_split, other_label: of the image or class that it is compared with.
        suggested_label: the class that is more probable than `label`.
        score: the larger, the surer or the stronger; None if there is no doubt.
        note: in which way.
    """

    check: str
    path: str = ""
    other_path: str = ""
    split: str = ""
    other_split: str = ""
    label: str = ""
    other_label: str = ""
    suggested_label: str = ""
    score: float | None = None
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the cells by column."""
        return {column: getattr(self, column) for column in COLUMNS}


@dataclass(frozen=True)
class Picture:
    """An image on the page: its position in the samples, a title in bold, and a line below it, which is left out if it
    `is_small`."""

    position: int
    title: str
    detail: str
    is_small: bool = False


@dataclass(frozen=True)
class Exhibit:
    """Pictures side by side, with what they show."""

    pictures: tuple[Picture, ...]
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table on the page: the first column holds names."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class CheckResult:
    """What a check has found.

    Attributes:
        key: its name in audit.csv and audit.json.
        title: its name for people.
        summary: how many of what; "nothing found" if there is nothing.
        certainty: how sure that is, and how it was measured.
        findings: rows of audit.csv.
        exhibits: for the page, the surest first.
        table: for the page.
        advice: what to do about it.
        seconds: how long it took.
        measurements: numbers for audit.json.
    """

    key: str
    title: str
    summary: str
    certainty: str = ""
    findings: tuple[Finding, ...] = ()
    exhibits: tuple[Exhibit, ...] = ()
    table: Table | None = None
    advice: str = ""
    seconds: float = 0.0
    measurements: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for audit.json."""
        return {
            "key": self.key,
            "title": self.title,
            "found": self.summary,
            "count": len(self.findings),
            "certainty": self.certainty,
            "seconds": round(self.seconds, 3),
            "measurements": self.measurements,
            "findings": [finding.to_dict() for finding in self.findings],
        }


def build_finding(
    check: str, samples: Samples, position: int, other_position: int | None = None, **details: Any
) -> Finding:
    """Build the finding about the image at `position`, perhaps compared with another; `details` are further fields."""
    sample = samples.samples[position]
    fields = {"path": sample.path, "split": sample.split, "label": samples.classes[sample.label], **details}
    if other_position is not None:
        other = samples.samples[other_position]
        fields |= {"other_path": other.path, "other_split": other.split, "other_label": samples.classes[other.label]}
    return Finding(check, **fields)


def build_picture(samples: Samples, position: int, title: str = "", *, is_small: bool = False) -> Picture:
    """Build the picture of an image with its class as the title, unless there is another, and its path and split."""
    sample = samples.samples[position]
    detail = sample.path if sample.path.startswith(f"{sample.split}/") else f"{sample.path} ({sample.split})"
    return Picture(position, title or samples.classes[sample.label], detail, is_small)


def limit_exhibits(exhibits: Sequence[Exhibit]) -> tuple[Exhibit, ...]:
    """Return the first MAX_EXHIBITS of `exhibits`."""
    return tuple(exhibits[:MAX_EXHIBITS])
