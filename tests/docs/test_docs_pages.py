"""Links, pictures, navigation, generated parts and Python blocks of the pages are valid, and the site builds."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import thaw
from docs import generate
from tests.conftest import ROOT, run_thaw
from tests.docs.pages import DOCS_PAGES, PAGES, README, find_blocks, find_link_targets, read_page

PAGES_WITH_PYTHON = [page for page in PAGES if find_blocks(page, "python")]
PAGES_WITH_RUNNABLE_PYTHON = [page for page in PAGES if find_blocks(page, "python", marker="run")]
TITLE = re.compile(r"^# .+\n", re.MULTILINE)


def get_page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def test_the_readme_is_short() -> None:
    assert len(read_page(README).splitlines()) <= 250


@pytest.mark.parametrize("page", PAGES, ids=get_page_id)
def test_links_and_pictures_of_a_page_exist(page: Path) -> None:
    targets = find_link_targets(page)
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", DOCS_PAGES, ids=get_page_id)
def test_a_page_starts_with_its_title(page: Path) -> None:
    assert TITLE.match(read_page(page))


def test_the_readme_links_every_page() -> None:
    linked_pages = {(ROOT / target).resolve() for target in find_link_targets(README)}
    assert [get_page_id(page) for page in DOCS_PAGES if page not in linked_pages] == []


def test_the_navigation_contains_every_page() -> None:
    navigation = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]
    pages = re.findall(r"'([\w/]+\.md)'", repr(navigation))
    assert sorted(pages) == [page.name for page in DOCS_PAGES]


def test_every_picture_is_on_a_page() -> None:
    shown_pictures = {(page.parent / target).resolve() for page in PAGES for target in find_link_targets(page)}
    pictures = sorted((ROOT / "docs" / "images").iterdir())
    assert pictures
    assert [picture.name for picture in pictures if picture not in shown_pictures] == []


@pytest.mark.parametrize("page", DOCS_PAGES, ids=get_page_id)
def test_generated_parts_are_up_to_date(page: Path) -> None:
    assert generate.render_page(page) == read_page(page), "run `make docs` and commit what it changes"


@pytest.mark.parametrize("page", PAGES_WITH_PYTHON, ids=get_page_id)
def test_python_blocks_are_valid(page: Path) -> None:
    for block in find_blocks(page, "python"):
        ast.parse(block)


@pytest.mark.parametrize("page", PAGES_WITH_PYTHON, ids=get_page_id)
def test_python_blocks_use_public_names_only(page: Path) -> None:
    names = {name for block in find_blocks(page, "python") for name in re.findall(r"\bthaw\.(\w+)", block)}
    assert sorted(names - set(thaw.__all__)) == []


@pytest.mark.parametrize("page", PAGES_WITH_RUNNABLE_PYTHON, ids=get_page_id)
def test_python_blocks_marked_to_run_succeed(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    for block in find_blocks(page, "python", marker="run"):
        exec(compile(block, str(page), "exec"), namespace)


def test_every_verb_has_a_section_with_two_examples(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_thaw(monkeypatch, "--help") == 0
    verbs = re.findall(r"^  ([a-z][a-z-]*)  ", capsys.readouterr().out, re.MULTILINE)
    page = ROOT / "docs" / "command_line.md"
    sections = re.findall(r"^### `thaw ([a-z-]+)", read_page(page), re.MULTILINE)
    examples = [line for block in find_blocks(page, "sh") for line in block.splitlines()]
    assert set(verbs) == set(sections)
    assert [verb for verb in verbs if sum(f"thaw {verb}" in example for example in examples) < 2] == []


def test_the_site_builds_without_warnings(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout + process.stderr
    assert sorted(page.stem for page in DOCS_PAGES) == sorted(
        page.stem for page in (tmp_path / "site").glob("*.html") if page.stem != "404"
    )
