"""The page of an audit, in one HTML file with its pictures inside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from thaw.auditing.findings import CheckResult, Picture
from thaw.config.errors import format_count
from thaw.config.printable import escape_line
from thaw.data.batches import ImageDataset
from thaw.visualization.reports.html import encode_thumbnail, render_template

if TYPE_CHECKING:
    from thaw.auditing.result import AuditResult

THUMBNAIL_SIDE = 160  # pixels


def render_audit_page(result: AuditResult, commands: Sequence[tuple[str, str]]) -> str:
    """Return the page of `result`. `commands` are pairs of a purpose and what to type."""
    counts = result.samples.count_per_split()
    tiles = [
        (f"{len(result.samples.samples):,}", "images"),
        (f"{len(result.samples.classes)}", "classes"),
        *((f"{count:,}", split) for split, count in counts.items()),
        (f"{len(result.findings):,}", "finding" if len(result.findings) == 1 else "findings"),
        (f"{result.seconds:.0f} s", "for the audit"),
    ]
    return render_template(
        "audit.html",
        package=str(__package__),
        name=result.dataset,
        fingerprint=result.samples.fingerprint,
        facts=result.facts,
        tiles=tiles,
        rows=list(zip(result.checks, result.list_rows(), strict=True)),
        sections=[_build_section(check, result.images) for check in result.checks if check.findings or check.table],
        commands=commands,
        notes=[*result.samples.notes, *result.samples.warnings],
    )


def _build_section(check: CheckResult, images: ImageDataset) -> dict[str, Any]:
    exhibits = [
        {"note": exhibit.note, "pictures": [_build_figure(picture, images) for picture in exhibit.pictures]}
        for exhibit in check.exhibits
    ]
    num_more = len(check.findings) - len(check.exhibits) if check.exhibits and len(check.findings) > 1 else 0
    more = f"{format_count(num_more, 'finding')} more in audit.csv." if num_more > 0 else ""
    return {"check": check, "exhibits": exhibits, "more": more}


def _build_figure(picture: Picture, images: ImageDataset) -> dict[str, Any]:
    return {
        "image": encode_thumbnail(images.store[picture.position], THUMBNAIL_SIDE),
        "title": escape_line(picture.title),
        "detail": escape_line(picture.detail),
        "is_small": picture.is_small,
    }
