"""Files for contributors and their tools: workflow, issue templates, pre-commit, changelog, citation."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
YAML_FILES = sorted([*(ROOT / ".github").rglob("*.yml"), ROOT / ".pre-commit-config.yaml", ROOT / "CITATION.cff"])
TEMPLATES = sorted(file for file in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if file.stem != "config")
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
CHANGE_KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
FIELD_TYPES = {"textarea", "input", "dropdown", "checkboxes", "markdown"}


def read_yaml(file: Path) -> Any:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("file", YAML_FILES, ids=lambda file: file.name)
def test_a_yaml_file_contains_a_mapping(file: Path) -> None:
    assert isinstance(read_yaml(file), dict)


def test_the_workflow_tests_every_supported_python() -> None:
    job = read_yaml(ROOT / ".github" / "workflows" / "ci.yml")["jobs"]["test"]
    supported = SpecifierSet(PROJECT["requires-python"])
    expected = [f"3.{minor}" for minor in range(30) if supported.contains(f"3.{minor}")]
    assert job["strategy"]["matrix"]["python-version"] == expected
    assert [step["run"] for step in job["steps"] if "run" in step] == ["make test"]


@pytest.mark.parametrize("file", TEMPLATES, ids=lambda file: file.name)
def test_an_issue_template_has_named_fields(file: Path) -> None:
    template = read_yaml(file)
    assert {"name", "description", "body"} <= set(template)
    ids = [field["id"] for field in template["body"]]
    assert len(set(ids)) == len(ids) > 0
    assert {field["type"] for field in template["body"]} <= FIELD_TYPES
    assert all(field["attributes"]["label"] for field in template["body"])


def test_a_bug_report_asks_for_the_record_of_the_run() -> None:
    assert [file.stem for file in TEMPLATES] == ["bug", "feature", "question"]
    (bug, _, _) = TEMPLATES
    assert any("run.json" in field["attributes"]["label"] for field in read_yaml(bug)["body"])


def test_pre_commit_accepts_its_configuration() -> None:
    command = [sys.executable, "-m", "pre_commit", "validate-config", str(ROOT / ".pre-commit-config.yaml")]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout + process.stderr


def test_pre_commit_uses_the_pinned_ruff() -> None:
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    hooks = [hook for repo in read_yaml(ROOT / ".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    versions = {version for hook in hooks for version in hook["additional_dependencies"] if "ruff" in version}
    assert len(versions) == 1
    assert versions <= set(pins)


def test_the_changelog_has_the_current_version_and_an_unreleased_part() -> None:
    versions = re.findall(r"^## \[(.+?)\]", CHANGELOG, re.MULTILINE)
    assert versions[0] == "Unreleased"
    assert PROJECT["version"] in versions
    assert set(re.findall(r"^### (.+)$", CHANGELOG, re.MULTILINE)) <= CHANGE_KINDS


def test_the_citation_matches_the_project() -> None:
    citation = read_yaml(ROOT / "CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= set(citation)  # required by the format
    assert citation["cff-version"] == "1.2.0"
    assert (citation["title"], citation["version"], citation["license"]) == (
        PROJECT["name"],
        PROJECT["version"],
        PROJECT["license"],
    )
    assert all(author.keys() & {"name", "family-names"} for author in citation["authors"])
