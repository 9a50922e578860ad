"""Parse HTML pages, and measure them in a browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

VOID_TAGS = {"meta", "img", "br"}
CHROMIUM = shutil.which("chromium") or ""
needs_browser = pytest.mark.skipif(not CHROMIUM, reason="needs chromium")


class Page(HTMLParser):
    """Collect the sections, images and references of a page, and check that every tag is closed."""

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
        self.open += [] if tag in VOID_TAGS else [tag]
        self.section = values.get("id", "") if tag == "section" else self.section
        self.references += [values[key] for key in ("src", "href") if key in values]
        drawn = [values["src"]] if tag == "img" else re.findall(r"url\((.*?)\)", values.get("style", ""))
        self.images += [(self.section, source) for source in drawn]
        self.references += [source for source in drawn if tag != "img"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.sections[self.section] = " ".join([self.sections.get(self.section, ""), *data.split()])


def open_in_browser(file: Path, width: int, aside: Path, script: str = "") -> tuple[int, int, int, str]:
    """Open `file` in Chromium, `width` pixels wide.

    Return the width of the content and of the window, the number of images that are not drawn, and the value of
    `script`. `aside` is a folder for temporary files.
    """
    page = aside / "page.html"
    measure = "<script>document.title = document.documentElement.scrollWidth + ' ' + innerWidth + ' ' + "
    measure += "[...document.images].filter(image => image.naturalWidth === 0 && image.loading !== 'lazy').length"
    measure += f" + ' ' + ({script or repr('')})</script>"
    page.write_text(file.read_text(encoding="utf-8").replace("</body>", f"{measure}</body>"))
    # Headless Chromium opens no window narrower than 500 pixels, so a frame of the width stands in for a phone.
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
    content, inner, num_missing_images, *rest = dom.split('data-seen="')[1].split('"')[0].split()
    return int(content), int(inner), int(num_missing_images), " ".join(rest)
