"""Initialize a head from rows of the pretrained last layer.

Rows are matched to the classes of a data set by name, never by number: libraries number the same classes differently.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from thaw.config.errors import Problem, UserError, find_closest_name, format_names
from thaw.config.schema import Initialization, SourceRowsHeadConfig
from thaw.models.head import init_weights


def match_rows_to_classes(
    head: SourceRowsHeadConfig, classes: Sequence[str], source_classes: Sequence[str]
) -> dict[str, int]:
    """Return class -> row, for each class that `head.rows` maps to a source class or that has the name of one.

    A source class may be a list of synonyms ("ant, emmet, pismire"). Case is ignored, and hyphen, underscore and space
    are the same. A match with the whole name precedes one with the first synonym, and that precedes the others.

    Raises:
        UserError: for names that match no class or several, and where no class gets a row.
    """
    source_names = {name: head.rows.get(name, name) for name in classes}
    candidate_rows = {
        name: _find_rows(source_name, source_classes)
        for name, source_name in source_names.items()
        if source_name is not None
    }
    if problems := [
        *_check_dataset_classes(head, classes),
        *_check_source_classes(head, candidate_rows, source_classes),
        *_check_ambiguous_classes(candidate_rows, source_classes),
    ]:
        raise UserError("the classes and the rows of the source do not fit together.", problems)
    rows = {name: matching_rows[0] for name, matching_rows in candidate_rows.items() if matching_rows}
    if not rows:
        raise UserError("the head would have no row of the source.", [_build_no_row_problem(classes, source_classes)])
    return rows


def init_from_rows(
    layer: nn.Linear, rows: Mapping[int, int], last_layer: nn.Module, remaining_init: Initialization
) -> None:
    """Copy row `rows[class]` of `last_layer`, with its bias, into `layer` for each class.

    `last_layer` is the source's: linear, or a 1x1 convolution. The other rows are drawn by `remaining_init` and scaled
    to the standard deviation of all weights of `last_layer`, so that all logits start at the same scale; their biases
    are 0, or torch's own with `torch`.

    Raises:
        UserError: where `last_layer` has no weights of `layer`'s width.
    """
    weight, bias = _get_weight_and_bias(last_layer, layer.in_features)
    init_weights(layer, remaining_init)
    with torch.no_grad():
        initial_std = layer.weight.std()
        layer.weight.mul_(weight.std() / initial_std if initial_std > 0 else 1.0)
        for class_index, row in rows.items():
            layer.weight[class_index] = weight[row]
            layer.bias[class_index] = bias[row]


def describe_rows(head: SourceRowsHeadConfig, classes: Sequence[str], source_classes: Sequence[str]) -> str:
    """Describe in one line which classes get which rows, and which get none. Raises as `match_rows_to_classes`."""
    rows = match_rows_to_classes(head, classes, source_classes)
    pairs = [f"{name} <- {source_classes[row]!r}" for name, row in rows.items()]
    unmatched_classes = [name for name in classes if name not in rows]
    init_note = f"; random ({head.rest}): {format_names(unmatched_classes)}" if unmatched_classes else ""
    return (
        f"head: {len(pairs)} of {len(classes)} classes start from rows of the source: {format_names(pairs)}{init_note}"
    )


def check_source_class_names(source_classes: Sequence[str], last_layer: nn.Module) -> None:
    """Check that `source_classes` name the rows of the source's last layer.

    Raises:
        UserError: where they do not.
    """
    num_rows = next((weight.shape[0] for weight in last_layer.parameters() if weight.ndim > 1), 0)
    if len(source_classes) != num_rows:
        got = f"{num_rows} rows and {len(source_classes) or 'no'} names"
        problem = Problem("head=source_rows", got, "weights whose classes the library names", "head=linear")
        raise UserError("the classes of the source weights are not known.", [problem])


def _normalize_name(name: str) -> str:
    return re.sub(r"[-_\s]+", " ", name).strip().lower()


def _split_synonyms(name: str) -> list[str]:
    return [synonym.strip() for synonym in name.split(",")]


def _find_rows(source_name: str, source_classes: Sequence[str]) -> list[int]:
    wanted_name = _normalize_name(source_name)
    synonyms_by_row = [[_normalize_name(synonym) for synonym in _split_synonyms(name)] for name in source_classes]
    rows_by_rank = (
        [row for row, name in enumerate(source_classes) if _normalize_name(name) == wanted_name],
        [row for row, synonyms in enumerate(synonyms_by_row) if synonyms[0] == wanted_name],
        [row for row, synonyms in enumerate(synonyms_by_row) if wanted_name in synonyms],
    )
    return next((rows for rows in rows_by_rank if rows), [])


def _check_dataset_classes(head: SourceRowsHeadConfig, classes: Sequence[str]) -> Iterator[Problem]:
    for name, source_name in head.rows.items():
        if name not in classes:
            closest = find_closest_name(name, classes)
            fix = f"head.rows.{closest}={source_name or 'null'}" if closest else ""
            yield Problem(f"head.rows.{name}", f"{name!r}, no class of the data set", format_names(classes), fix)


def _check_source_classes(
    head: SourceRowsHeadConfig, candidate_rows: Mapping[str, list[int]], source_classes: Sequence[str]
) -> Iterator[Problem]:
    for name, rows in candidate_rows.items():
        source_name = head.rows.get(name)
        if source_name and not rows:
            closest_names = _find_closest_synonyms(source_name, source_classes)
            valid = f"{len(source_classes)} classes of the source; closest: {format_names(closest_names) or 'none'}"
            fix = f"head.rows.{name}={closest_names[0]}" if closest_names else ""
            yield Problem(f"head.rows.{name}={source_name}", f"{source_name!r}, no class of the source", valid, fix)


def _find_closest_synonyms(source_name: str, source_classes: Sequence[str]) -> list[str]:
    synonyms = {_normalize_name(synonym): synonym for name in source_classes for synonym in _split_synonyms(name)}
    matches = difflib.get_close_matches(_normalize_name(source_name), synonyms, n=5, cutoff=0.6)
    return [synonyms[synonym] for synonym in matches]


def _check_ambiguous_classes(
    candidate_rows: Mapping[str, list[int]], source_classes: Sequence[str]
) -> Iterator[Problem]:
    for name, rows in candidate_rows.items():
        if len(rows) > 1:
            names = " | ".join(source_classes[row] for row in rows)
            fix = f"head.rows.{name}=NAME, a name of only one of them, or null for none"
            yield Problem(f"the class {name} has {len(rows)} source classes of its name", names, "one", fix)


def _build_no_row_problem(classes: Sequence[str], source_classes: Sequence[str]) -> Problem:
    got = f"none of {format_names(classes, 6)} is the name of a source class"
    valid = f"names such as {format_names([_split_synonyms(name)[0] for name in source_classes], 6)}"
    return Problem("head=source_rows", got, valid, f"head.rows.{classes[0]}=NAME, or head=linear")


def _get_weight_and_bias(last_layer: nn.Module, width: int) -> tuple[Tensor, Tensor]:
    """Return weight [rows, width] and bias [rows], zeros where the layer has no bias."""
    weight, bias = getattr(last_layer, "weight", None), getattr(last_layer, "bias", None)
    if not isinstance(weight, Tensor) or weight.flatten(1).shape[1] != width:
        shape = " x ".join(map(str, weight.shape)) if isinstance(weight, Tensor) else type(last_layer).__name__
        problem = Problem("head=source_rows", shape, f"a weight of N x {width}", "head=linear")
        raise UserError("the source's last layer has no row per class.", [problem])
    weight = weight.detach().flatten(1)
    return weight, bias.detach() if isinstance(bias, Tensor) else weight.new_zeros(len(weight))
