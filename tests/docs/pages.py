"""Find the pages of the documentation, and their code blocks and links."""

from __future__ import annotations

import re
from pathlib import Path

from tests.conftest import ROOT

README = ROOT / "README.md"
DOCS_PAGES = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *DOCS_PAGES]


def read_page(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def find_blocks(page: Path, language: str, marker: str = "") -> list[str]:
    """Return the code blocks of `language`; with a `marker`, those under the comment `<!-- test: MARKER -->`."""
    prefix = rf"<!-- test: {marker} -->\n" if marker else ""
    return re.findall(rf"{prefix}```{language}\n(.*?)```", read_page(page), re.DOTALL)


def list_commands() -> list[str]:
    """Return the shell commands of all pages, each once, without comments."""
    lines = [line for page in PAGES for block in find_blocks(page, "sh") for line in block.splitlines()]
    return sorted({command for line in lines if (command := re.sub(r"(^|\s+)# .*", "", line).strip())})


def find_link_targets(page: Path) -> list[str]:
    """Return the targets of links and pictures that are files, without their anchors."""
    targets = re.findall(r"\]\(([^)\s]+)\)", read_page(page))
    return [target.partition("#")[0] for target in targets if not target.startswith(("http", "#"))]
