"""Read the files of a run and check them once, so that nothing else has to expect damage. Imports no torch."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from thaw.config.errors import Problem, UserError, format_names
from thaw.config.renamed_keys import upgrade_recipe
from thaw.config.schema import Recipe
from thaw.runs import HISTORY_FILE, METRICS_FILE, PREDICTIONS_FILE, RECIPE_FILE, RECORD_FILE, SEARCH_FILE, SWEEP_FILE
from thaw.system.csv_files import read_rows as parse_rows

YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a tenth of the time, if PyYAML was built with it
MAX_JSON_BYTES, MAX_YAML_BYTES, MAX_CSV_BYTES = 2**26, 2**20, 2**31
MAX_DEPTH = 50  # of nested lists and mappings; files of thaw have at most 7
MAX_TIED_FRACTION = 0.001
DAMAGED = "damaged"
FIXES = {
    RECORD_FILE: "delete the file; then `thaw resume {directory}` goes on from config.yaml and the last checkpoint",
    RECIPE_FILE: "restore it from a copy; thaw evaluate and thaw predict need only checkpoints/best.ckpt",
    METRICS_FILE: "`thaw resume {directory}` computes it again",
    PREDICTIONS_FILE: "`thaw resume {directory}` computes it again",
    HISTORY_FILE: "delete the file: only curves and the time of the epochs come from it",
    SWEEP_FILE: "delete the file, and start the sweep again with its command and hydra.sweep.dir={directory}; "
    "finished jobs stay as they are",
    SEARCH_FILE: "restore it from a copy, or start a new search",
}


def read_json(file: Path, model: type[BaseModel]) -> dict[str, Any]:
    """Return the content of a JSON file that `model` describes.

    Raises:
        UserError: if the file is missing, unreadable, no JSON, or not as `model` describes it.
    """
    text = read_text_file(file, MAX_JSON_BYTES)
    try:
        content = json.loads(text, parse_constant=_reject_constant)
        if not isinstance(content, dict):
            raise ValueError(f"{_describe_type(content)} instead of named entries")
        _check_depth(content)
        model.model_validate(content)
    except ValidationError as error:
        raise build_damage_error(file, _describe_mismatches(error)) from error
    except (ValueError, RecursionError) as error:
        raise build_damage_error(file, _describe_json_error(error, text)) from error
    return content


def read_recipe(file: Path) -> Recipe:
    """Return the recipe in a `config.yaml`, with the keys of version 0.1 renamed.

    Raises:
        UserError: if it is damaged, or no valid recipe.
    """
    values = read_recipe_values(file)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise build_damage_error(file, _describe_mismatches(error)) from error


def read_recipe_values(file: Path) -> dict[str, Any]:
    """Return the nested dicts of a `config.yaml`, with the keys of version 0.1 renamed, unchecked.

    Raises:
        UserError: if it is missing, unreadable or no YAML mapping.
    """
    text = read_text_file(file, MAX_YAML_BYTES, errors="replace")
    try:
        _check_yaml_events(text)
        values = yaml.load(text, YAML_LOADER)
        if not isinstance(values, dict):
            raise ValueError(f"{_describe_type(values)} instead of the keys of a recipe")
        return upgrade_recipe(values)
    except (yaml.YAMLError, ValueError, TypeError, ArithmeticError, AttributeError) as error:
        raise build_damage_error(file, " ".join(str(error).split())) from error


def read_rows(file: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Return the rows of a CSV file that has `columns` and perhaps others.

    Raises:
        UserError: if the file is missing, unreadable, cut off, or has other columns.
    """
    text = read_text_file(file, MAX_CSV_BYTES, errors="surrogateescape")
    if not text.endswith("\n"):
        raise build_damage_error(file, "it is cut off: its last line has no end")
    try:
        rows = parse_rows(io.StringIO(text, newline=""))
    except csv.Error as error:
        raise build_damage_error(file, f"it is no CSV: {error}") from error
    if not rows:
        raise build_damage_error(file, "it has no rows")
    if missing_columns := [name for name in columns if name not in rows[0]]:
        raise build_damage_error(file, f"no column {format_names(missing_columns)}")
    return rows


def read_text_file(file: Path, max_bytes: int, errors: str = "strict") -> str:
    """Return the text of `file`, which is UTF-8.

    Raises:
        UserError: if it is missing, unreadable, empty, larger than `max_bytes`, or no text.
    """
    try:
        if not file.is_file():
            raise build_damage_error(file, "no such file" if not os.path.lexists(file) else "it is no file")
        if (size := file.stat().st_size) > max_bytes:
            raise build_damage_error(file, f"it has {size:,} bytes; thaw writes less than {max_bytes:,}")
        text = file.read_bytes().decode("utf-8", errors)
    except OSError as error:
        raise build_damage_error(file, f"it cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise build_damage_error(file, "it is no text in UTF-8") from error
    if not text.strip():
        raise build_damage_error(file, "it is empty")
    if "\0" in text:
        raise build_damage_error(file, "it holds binary data")
    return text


def build_damage_error(file: Path, got: str) -> UserError:
    """Return the error for a file of a run that cannot be used: what is wrong with it, and what to do."""
    fix = FIXES.get(file.name, "").format(directory=shlex.quote(str(file.parent)))
    return UserError(f"{file.name} cannot be used.", [Problem(str(file), got, fix=fix)])


def check_history(file: Path, rows: Sequence[dict[str, str]]) -> None:
    """Raise UserError if `rows` of a `history.csv` are not those of the epochs 1, 2, ... in their order, or a cell that
    should hold a number does not. A number may be nan: a loss that is not finite ends a run."""
    for number, row in enumerate(rows, 2):
        texts = [text for name, text in row.items() if name != "phase" and text]
        if not all(map(_is_number, texts)) or not row["epoch"].isdecimal():
            raise build_damage_error(file, f"row {number} has text where a number should be")
    epochs = [int(row["epoch"]) for row in rows]
    if epochs != sorted(set(epochs)):
        raise build_damage_error(file, "its epochs are not in order")


def check_predictions(file: Path, rows: Sequence[dict[str, str]]) -> None:
    """Raise UserError if a probability in `rows` of a `predictions.csv` is not between 0 and 1."""
    for number, row in enumerate(rows, 2):
        if not _is_number(row["probability"]) or not 0 <= float(row["probability"]) <= 1:
            raise build_damage_error(file, f"row {number} has no probability between 0 and 1")


def check_agreement(file: Path, count: int, num_correct: int, test_metrics: Mapping[str, Any]) -> None:
    """Raise UserError if a `predictions.csv` of `count` images, `num_correct` of them correct, is not that of the
    metrics of `metrics.json`. Rounded probabilities may have ties, so that some images may differ."""
    difference = abs(num_correct - test_metrics["accuracy"] * count)
    if count != test_metrics["count"] or difference > 0.5 + count * MAX_TIED_FRACTION:
        got = f"{num_correct} of {count} images are correct, and {METRICS_FILE} says "
        got += f"{test_metrics['accuracy'] * test_metrics['count']:.0f} of {test_metrics['count']}"
        raise build_damage_error(file, got)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _reject_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of thaw's")


def _describe_json_error(error: Exception, text: str) -> str:
    if isinstance(error, RecursionError):
        return "lists or entries are nested too deeply"
    if isinstance(error, json.JSONDecodeError):
        is_cut = error.pos >= len(text.rstrip()) or "Unterminated" in error.msg
        return f"{'it is cut off' if is_cut else 'it is no JSON'}: {error}"
    return str(error)


def _describe_type(value: Any) -> str:
    names = {list: "a list", str: "text", type(None): "null", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), type(value).__name__)


def _describe_mismatches(error: ValidationError) -> str:
    details = error.errors(include_url=False, include_input=False)
    lines = [f"{'.'.join(map(str, detail['loc']))}: {_describe_detail(detail)}" for detail in details]
    return format_names(dict.fromkeys(lines), 3)


def _describe_detail(detail: Any) -> str:
    messages = {"missing": "is missing", "extra_forbidden": "no such key; perhaps of a newer version of thaw"}
    return messages.get(detail["type"]) or str(detail["msg"]).replace("Input should", "should")


def _check_depth(content: Any) -> None:
    """Raise ValueError if lists and mappings are nested deeper than MAX_DEPTH, or a number is not finite."""
    layer, depth = [content], 0
    while layer:
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError("lists or entries are nested too deeply")
        if any(isinstance(value, float) and not math.isfinite(value) for value in layer):
            raise ValueError("a number is not finite")
        containers = [value.values() if isinstance(value, dict) else value for value in layer if _is_container(value)]
        layer = [value for container in containers for value in container]


def _is_container(value: Any) -> bool:
    return isinstance(value, dict | list)


def _check_yaml_events(text: str) -> None:
    """Raise ValueError for deep nesting, with which PyYAML's C code overflows the stack, and for references, with which
    a short file describes endless values. thaw writes neither."""
    depth = 0
    for event in yaml.parse(text, YAML_LOADER):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("it holds a reference (*name), which thaw does not write")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ValueError("lists or keys are nested too deeply")
