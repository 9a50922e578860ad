"""How a run looks in a notebook."""

from __future__ import annotations

import base64
import html
import webbrowser
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SHOWN_METRICS = ("accuracy", "macro_accuracy", "macro_f1", "loss", "count")


class HtmlReport:
    """An HTML page on disk, shown in a notebook. `str(report)` is its path."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self) -> None:
        """Open the page in the web browser."""
        webbrowser.open(self.path.absolute().as_uri())

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"HtmlReport({str(self.path)!r})"

    def _repr_html_(self) -> str:
        page = html.escape(self.path.read_text(encoding="utf-8"), quote=True)
        return f'<iframe srcdoc="{page}" style="width: 100%; height: 700px; border: 0"></iframe>'


def render_run(name: str, status: str, metrics: Mapping[str, Any], curves_file: Path) -> str:
    """Return HTML with the metrics of a run and, if `curves_file` exists, its curves."""
    splits = [split for split in ("test", "val") if split in metrics]
    rows = [
        "<tr><th>" + "</th><th>".join(["", *splits]) + "</th></tr>",
        *(_render_metric(key, [metrics[split] for split in splits]) for key in SHOWN_METRICS),
    ]
    table = f"<table>{''.join(rows)}</table>" if splits else ""
    curves = ""
    if curves_file.is_file():
        content = base64.b64encode(curves_file.read_bytes()).decode()
        curves = f'<img src="data:image/png;base64,{content}" style="max-width: 100%">'
    return f"<div><b>{html.escape(name)}</b> ({html.escape(status)}){table}{curves}</div>"


def _render_metric(key: str, splits: list[Mapping[str, Any]]) -> str:
    cells = [_format_metric(key, metrics) for metrics in splits]
    return f"<tr><td>{key.replace('_', ' ')}</td>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _format_metric(key: str, metrics: Mapping[str, Any]) -> str:
    value = metrics.get(key)
    if value is None:
        return ""
    interval = metrics.get(f"{key}_ci95")
    text = f"{value:.3f}" if isinstance(value, float) else f"{value:,}"
    return f"{text} ({interval[0]:.3f} to {interval[1]:.3f})" if interval else text
