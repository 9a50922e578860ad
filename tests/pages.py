"""What a page holds, and whether it fits a browser's width."""

from __future__ import annotations

import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

VOID = {"meta", "img", "br"}
CHROMIUM = shutil.which("chromium") or ""
needs_browser = pytest.mark.skipif(not CHROMIUM, reason="no chromium to open the page with")


class Page(HTMLParser):
    """Tags, what they refer to, texts, and whether every tag that opens also closes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sections: dict[str, str] = {}
        self.images: list[tuple[str, str]] = []
        self.references: list[str] = []
        self.section = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        self.open += [] if tag in VOID else [tag]
        self.section = values.get("id", "") if tag == "section" else self.section
        self.references += [values[key] for key in ("src", "href") if key in values]
        if tag == "img":
            self.images.append((self.section, values["src"]))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.sections[self.section] = " ".join([self.sections.get(self.section, ""), *data.split()])


def opened(file: Path, width: int, aside: Path, script: str = "") -> tuple[int, int, int, str]:
    """In Chromium: the page's own width, the window's, how many pictures are not drawn, and what `script` gives."""
    page = aside / "page.html"
    measure = "<script>document.title = document.documentElement.scrollWidth + ' ' + innerWidth + ' ' + "
    measure += "[...document.images].filter(one => one.naturalWidth === 0 && one.loading !== 'lazy').length"
    measure += f" + ' ' + ({script or repr('')})</script>"
    page.write_text(file.read_text(encoding="utf-8").replace("</body>", f"{measure}</body>"))
    # Headless Chromium opens no window narrower than 500 pixels: a frame of the width stands for the telephone.
    outer = aside / "outer.html"
    outer.write_text(
        f"<iframe src='page.html' width={width} height=900 style='border:0'></iframe><script>onload = () => "
        "document.body.dataset.seen = document.querySelector('iframe').contentDocument.title</script>"
    )
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--allow-file-access-from-files",
        "--window-size=1300,900",
    ]
    command = [CHROMIUM, *options, "--virtual-time-budget=4000", "--dump-dom", outer.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    content, inner, undrawn, *rest = dom.split('data-seen="')[1].split('"')[0].split()
    return int(content), int(inner), int(undrawn), " ".join(rest)
