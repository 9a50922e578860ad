"""Names follow the rules of docs/contributing.md: standard terms, verbs for functions, no private vocabulary."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

SOURCE_FILES = sorted((ROOT / "src" / "thaw").rglob("*.py"))
ALL_FILES = [*SOURCE_FILES, *sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "benchmarks").rglob("*.py"))]

# Words that do not say what they hold, and the private vocabulary of version 0.1.
BANNED_ANYWHERE = frozenset(
    [
        "one",
        "found",
        "told",
        "made",
        "said",
        "them",
        "what",
        "given",
        "gathered",
        "claimed",
        "fetched",
        "unpacked",
        "joined",
        "summed",
        "judged",
        "seen",
        "held",
        "dice",
        "crew",
        "supply",
        "feed",
        "learner",
        "companion",
        "shelf",
        "rehearsal",
        "rehearsed",
        "misfits",
        "fault",
        "faults",
        "UserFault",
        "Fault",
        "Crew",
        "ALONE",
        "Supply",
        "Feed",
        "Materials",
        "Assembly",
        "assembled",
        "Learner",
        "Sums",
        "Norms",
        "Checkpoints",
        "Entering",
        "Supplied",
        "Sharding",
        "SourcePull",
        "Averaging",
        "Probed",
        "Subject",
        "Tested",
        "OfClass",
        "Confused",
        "InOrder",
        "EpochBatches",
        "NotFetched",
        "Restored",
        "NotTheSame",
        "Shown",
        "PATIENCE",
        "MOST_OF_THE_TIME",
        "source_pull",
        "is_divided",
        "is_further",
        "at_hand",
        "passed_over",
        "as_they_are",
        "as_trained_on",
        "surest",
        "worst_first",
        "jpeg_of",
        "dreamt",
        "layout_of",
        "plan_of",
        "size_of",
        "source_of",
        "store_of",
        "samples_of",
        "metrics_of",
        "rank_of",
        "told_rows",
        "share_of",
        "study_before",
    ]
)
# Names of version 0.1 for functions, classes and modules that are good words for a variable.
BANNED_DEFINITIONS = frozenset(
    [
        "agree",
        "amended",
        "answers",
        "apart",
        "around",
        "calm",
        "changed",
        "checked",
        "chosen",
        "compared",
        "complete_folder",
        "compute",
        "contents",
        "corners",
        "cut",
        "cut_per_class",
        "decoded",
        "differing",
        "evenly_drawn",
        "explaining",
        "extracted",
        "find",
        "fitted",
        "folded",
        "forced",
        "frontier",
        "hardware",
        "in_phase",
        "informs",
        "inspected",
        "joined_run",
        "known",
        "lead",
        "listing",
        "look_past_imports",
        "looked_at",
        "looks",
        "make_room",
        "meant",
        "moving",
        "nearest",
        "needs_by_hand",
        "next_opened",
        "note",
        "note_use",
        "of_the_first",
        "only",
        "opened",
        "parsed",
        "placements",
        "planned",
        "prepare",
        "quieten",
        "recorded",
        "refused",
        "reseed",
        "restored",
        "right",
        "run_seeing",
        "sharing",
        "shipped",
        "sorted_words",
        "spared",
        "squares",
        "started",
        "still_stages",
        "still_to_fetch",
        "sweeping",
        "take_up",
        "tell",
        "titled",
        "together",
        "tried",
        "trimmed",
        "under_own_names",
        "undivided",
        "unseen",
        "unstarted_network",
        "untouched",
        "verified",
        "watching",
        "whole",
        "with_fewer",
        "without_values",
        "words",
    ]
)
PARTICIPLE = re.compile(
    r"(?:[a-z]+ed|made|told|found|drawn|cut|kept|held|built|sent|given|taken|written|read_back|seen|begun)"
)
PREPOSITION = re.compile(r".+_(?:of|for|by)")
ALLOWED_FUNCTIONS = frozenset({"memory_format_of"})  # reads as a question to torch: the memory format of a network


def iter_names(file: Path) -> Iterator[tuple[int, str]]:
    """Yield line and name of every function, class, parameter and variable that `file` defines."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def iter_public_functions(file: Path) -> Iterator[ast.FunctionDef]:
    """Yield the public functions of `file` and the public methods of its classes, without properties."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for scope in (tree, *(node for node in tree.body if isinstance(node, ast.ClassDef))):
        for node in scope.body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and not _is_property(node):
                yield node


def _is_property(node: ast.FunctionDef) -> bool:
    return any("property" in ast.unparse(decorator) for decorator in node.decorator_list)


def show_path(file: Path) -> str:
    return str(file.relative_to(ROOT))


@pytest.mark.parametrize("file", ALL_FILES, ids=show_path)
def test_no_name_is_banned(file: Path) -> None:
    banned_names = [f"{line}: {name}" for line, name in iter_names(file) if name.lstrip("_") in BANNED_ANYWHERE]
    assert not banned_names


@pytest.mark.parametrize("file", SOURCE_FILES, ids=show_path)
def test_no_function_class_or_module_has_a_private_name(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    definitions = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert not {*definitions, file.stem} & (BANNED_ANYWHERE | BANNED_DEFINITIONS)


@pytest.mark.parametrize("file", SOURCE_FILES, ids=show_path)
def test_no_public_function_is_a_bare_participle(file: Path) -> None:
    assert [node.name for node in iter_public_functions(file) if PARTICIPLE.fullmatch(node.name)] == []


@pytest.mark.parametrize("file", SOURCE_FILES, ids=show_path)
def test_no_public_function_ends_with_a_preposition(file: Path) -> None:
    names = [node.name for node in iter_public_functions(file) if PREPOSITION.fullmatch(node.name)]
    assert [name for name in names if name not in ALLOWED_FUNCTIONS] == []


@pytest.mark.parametrize("file", SOURCE_FILES, ids=show_path)
def test_every_public_function_and_class_has_a_docstring(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    public = [
        node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    ]
    assert [node.name for node in public if not ast.get_docstring(node)] == []


def test_the_test_fails_on_a_banned_name(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text("def told(found):\n    made = [one for one in found]\n    return made\n", encoding="utf-8")
    assert {name for _, name in iter_names(file)} >= {"told", "found", "made", "one"}
    assert [node.name for node in iter_public_functions(file) if PARTICIPLE.fullmatch(node.name)] == ["told"]
