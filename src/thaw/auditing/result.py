"""The result of an audit: in Python and notebooks, and as files."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thaw.auditing.findings import COLUMNS, CheckResult, Finding
from thaw.auditing.suggestions import Exclusion, Relabeling
from thaw.config.errors import Problem, UserError, format_count
from thaw.data.batches import ImageDataset
from thaw.data.samples import Samples
from thaw.system.csv_files import format_rows
from thaw.system.files import write_text
from thaw.system.portable import shorten_path
from thaw.system.tables import build_data_frame, render_html_table

PAGE_FILE, FINDINGS_FILE, RECORD_FILE = "audit.html", "audit.csv", "audit.json"
EXCLUDE_FILE, RELABEL_FILE = "exclude.csv", "relabel.csv"
HEADINGS = ("check", "found", "how sure", "seconds")


@dataclass(frozen=True)
class AuditResult:
    """What an audit has found. In a notebook it shows a row for each check.

    Attributes:
        dataset: name of the data set.
        samples: the images that were checked.
        images: their pixels, for the page.
        checks: the result of each check, the most serious first.
        exclusions: images that data.exclude can leave out, with those that it leaves out already.
        relabelings: suggestions for data.relabel, with those that it has already.
        seconds: of the whole audit.
        facts: backbone, number of features, seconds of their extraction, and so on, for the record.
    """

    dataset: str
    samples: Samples
    images: ImageDataset
    checks: tuple[CheckResult, ...]
    exclusions: tuple[Exclusion, ...]
    relabelings: tuple[Relabeling, ...]
    seconds: float
    facts: Mapping[str, Any]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings, in the order of the checks."""
        return tuple(finding for check in self.checks for finding in check.findings)

    def to_frame(self) -> Any:
        """Return one row per finding, with the columns of audit.csv. A pandas data frame if pandas is installed,
        otherwise a list of dicts."""
        return build_data_frame([finding.to_dict() for finding in self.findings])

    def to_check_frame(self) -> Any:
        """Return one row per check: key, check, found, count, how sure, seconds; as `to_frame`."""
        rows = [
            {
                "key": check.key,
                "check": check.title,
                "found": check.summary,
                "count": len(check.findings),
                "how_sure": check.certainty,
                "seconds": check.seconds,
            }
            for check in self.checks
        ]
        return build_data_frame(rows)

    def list_rows(self) -> list[list[str]]:
        """Return a row per check with a cell for each of HEADINGS."""
        return [[check.title, check.summary, check.certainty, f"{check.seconds:.1f}"] for check in self.checks]

    def write(self, directory: str | os.PathLike[str]) -> Path:
        """Write audit.html, audit.csv, audit.json, exclude.csv and relabel.csv into `directory`; return it.

        Raises:
            UserError: if it cannot be written.
        """
        from thaw.auditing.page import render_audit_page

        folder = Path(directory).expanduser()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            rows = [finding.to_dict() for finding in self.findings]
            write_text(folder / FINDINGS_FILE, _format_dicts(COLUMNS, rows))
            excluded = [exclusion.to_dict() for exclusion in self.exclusions]
            write_text(folder / EXCLUDE_FILE, _format_dicts(("path", "other_path", "note"), excluded))
            relabeled = [relabeling.to_dict() for relabeling in self.relabelings]
            write_text(
                folder / RELABEL_FILE, _format_dicts(("path", "label", "given_label", "score", "note"), relabeled)
            )
            write_text(folder / RECORD_FILE, json.dumps(self._build_record(), indent=2) + "\n")
            write_text(folder / PAGE_FILE, render_audit_page(self, self.format_commands(folder)))
        except OSError as error:
            problem = Problem(
                str(error.filename or folder), error.strerror or str(error), fix="--out DIR of another folder"
            )
            raise UserError("the audit cannot be written.", [problem]) from error
        return folder

    def _build_record(self) -> dict[str, Any]:
        return {
            "dataset": self.dataset,
            "fingerprint": self.samples.fingerprint,
            "classes": len(self.samples.classes),
            "images": self.samples.count_per_split(),
            **self.facts,
            "seconds": round(self.seconds, 3),
            "found": sum(len(check.findings) for check in self.checks),
            "excluded": len(self.exclusions),
            "relabeled": len(self.relabelings),
            "checks": [check.to_dict() for check in self.checks],
        }

    def format_commands(self, folder: Path) -> list[tuple[str, str]]:
        """Return what to do next, as pairs of a purpose and what to type, after `write(folder)`."""
        return list(self._iter_commands(folder))

    def _iter_commands(self, folder: Path) -> Iterator[tuple[str, str]]:
        def format_setting(key: str, name: str) -> str:
            return shlex.quote(f"data.{key}={shorten_path(folder / name)}")

        if self.exclusions:
            count = format_count(len(self.exclusions), "image")
            yield f"leave {count} out", format_setting("exclude", EXCLUDE_FILE)
        if self.relabelings:
            count = format_count(len(self.relabelings), "suggested label")
            yield f"{count}: look at each, and delete the wrong lines first", format_setting("relabel", RELABEL_FILE)
        for check in self.checks:
            if override := check.measurements.get("override"):
                yield "keep the groups together", str(override)

    def __repr__(self) -> str:
        summaries = [f"{check.title.lower()}: {check.summary}" for check in self.checks if check.findings]
        num_images = format_count(len(self.samples.samples), "image")
        return f"AuditResult({self.dataset}, {num_images}; {'; '.join(summaries) or 'nothing found'})"

    def _repr_html_(self) -> str:
        return render_html_table(
            f"{self.dataset}: {format_count(len(self.findings), 'finding')}", HEADINGS, self.list_rows()
        )


def _format_dicts(columns: tuple[str, ...], rows: list[dict[str, Any]]) -> str:
    return format_rows([columns, *([_format_number(row[column]) for column in columns] for row in rows)])


def _format_number(value: Any) -> Any:
    return f"{value:.4g}" if isinstance(value, float) else value
