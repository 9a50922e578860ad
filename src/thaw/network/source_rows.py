"""Rows of the source's last layer for the classes of a data set: found by class name, never by number, since libraries
number the same classes differently."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from thaw.config.faults import Fault, UserFault, listing, nearest
from thaw.config.schema import Initialisation, SourceRowsHead
from thaw.network.head import draw


def rows_by_class(head: SourceRowsHead, classes: Sequence[str], known: Sequence[str]) -> dict[str, int]:
    """Class -> row, for the classes that `head.rows` gives a source class or whose own name is one; `known` are the
    source's names, each perhaps a list of synonyms ("ant, emmet, pismire"). Upper and lower case are alike, and so are
    hyphen, underscore and space. A whole name counts before a first synonym, and that before any other.

    Raises:
        UserFault: for names that are no class, or more than one, and where no class gets a row.
    """
    wanted = {name: head.rows.get(name, name) for name in classes}
    found = {name: _rows_named(text, known) for name, text in wanted.items() if text is not None}
    if faults := [*_unknown_classes(head, classes), *_unknown_sources(head, found, known), *_shared(found, known)]:
        raise UserFault("the classes and the rows of the source do not fit together.", faults)
    rows = {name: places[0] for name, places in found.items() if places}
    if not rows:
        raise UserFault("the head would have no row of the source.", [_no_row(classes, known)])
    return rows


def start_from_rows(layer: nn.Linear, rows: Mapping[int, int], last: nn.Module, rest: Initialisation) -> None:
    """Copies row `rows[class]` of `last`, the source's last layer (linear, or a 1x1 convolution), with its bias into
    `layer`. The other rows are drawn as `rest` says and scaled to the standard deviation of all of `last`'s weights, so
    that no logit starts out louder; their biases are 0, but for torch's own.

    Raises:
        UserFault: where `last` has no weights of `layer`'s width.
    """
    weight, bias = _weights_of(last, layer.in_features)
    draw(layer, rest)
    with torch.no_grad():
        drawn = layer.weight.std()
        layer.weight.mul_(weight.std() / drawn if drawn > 0 else 1.0)
        for place, row in rows.items():
            layer.weight[place] = weight[row]
            layer.bias[place] = bias[row]


def told_rows(head: SourceRowsHead, classes: Sequence[str], known: Sequence[str]) -> str:
    """One line: which classes get which rows, and which none. Raises as `rows_by_class`."""
    rows = rows_by_class(head, classes, known)
    pairs = [f"{name} <- {known[row]!r}" for name, row in rows.items()]
    others = [name for name in classes if name not in rows]
    anew = f"; anew ({head.rest}): {listing(others)}" if others else ""
    return f"head: {len(pairs)} of {len(classes)} classes start from rows of the source: {listing(pairs)}{anew}"


def check_names(known: Sequence[str], last: nn.Module) -> None:
    """Raises UserFault where the rows of `last`, the source's last layer, have no names."""
    rows = next((weight.shape[0] for weight in last.parameters() if weight.ndim > 1), 0)
    if len(known) != rows:
        got = f"{rows} rows and {len(known) or 'no'} names"
        fault = Fault("head=source_rows", got, "weights whose classes the library names", "head=linear")
        raise UserFault("the classes of the source weights are not known.", [fault])


def _plain(name: str) -> str:
    return re.sub(r"[-_\s]+", " ", name).strip().lower()


def _synonyms(name: str) -> list[str]:
    return [one.strip() for one in name.split(",")]


def _rows_named(text: str, known: Sequence[str]) -> list[int]:
    wanted, plain = _plain(text), [[_plain(one) for one in _synonyms(name)] for name in known]
    by_rank = (
        [row for row, name in enumerate(known) if _plain(name) == wanted],
        [row for row, names in enumerate(plain) if names[0] == wanted],
        [row for row, names in enumerate(plain) if wanted in names],
    )
    return next((rows for rows in by_rank if rows), [])


def _unknown_classes(head: SourceRowsHead, classes: Sequence[str]) -> Iterator[Fault]:
    for name, text in head.rows.items():
        if name not in classes:
            closest = nearest(name, classes)
            fix = f"head.rows.{closest}={text or 'null'}" if closest else ""
            yield Fault(f"head.rows.{name}", f"{name!r}, no class of the data set", listing(classes), fix)


def _unknown_sources(head: SourceRowsHead, found: Mapping[str, list[int]], known: Sequence[str]) -> Iterator[Fault]:
    for name, rows in found.items():
        text = head.rows.get(name)
        if text and not rows:
            near = _near(text, known)
            valid = f"{len(known)} classes of the source, of which nearest: {listing(near) or 'none'}"
            fix = f"head.rows.{name}={near[0]}" if near else ""
            yield Fault(f"head.rows.{name}={text}", f"{text!r}, no class of the source", valid, fix)


def _near(text: str, known: Sequence[str]) -> list[str]:
    names = {_plain(one): one for name in known for one in _synonyms(name)}
    close = difflib.get_close_matches(_plain(text), names, n=5, cutoff=0.6)
    return [names[one] for one in close]


def _shared(found: Mapping[str, list[int]], known: Sequence[str]) -> Iterator[Fault]:
    for name, rows in found.items():
        if len(rows) > 1:
            names = " | ".join(known[row] for row in rows)
            fix = f"head.rows.{name}=NAME, a name of one alone, or null: none of them"
            yield Fault(f"the class {name} has {len(rows)} source classes of its name", names, "one", fix)


def _no_row(classes: Sequence[str], known: Sequence[str]) -> Fault:
    got = f"none of {listing(classes, 6)} is the name of a source class"
    valid = f"names such as {listing([_synonyms(name)[0] for name in known], 6)}"
    return Fault("head=source_rows", got, valid, f"head.rows.{classes[0]}=NAME, or head=linear")


def _weights_of(last: nn.Module, width: int) -> tuple[Tensor, Tensor]:
    """[rows, width] and [rows], the latter 0 where the layer has no bias."""
    weight, bias = getattr(last, "weight", None), getattr(last, "bias", None)
    if not isinstance(weight, Tensor) or weight.flatten(1).shape[1] != width:
        shape = " x ".join(map(str, weight.shape)) if isinstance(weight, Tensor) else type(last).__name__
        fault = Fault("head=source_rows", shape, f"a weight of N x {width}", "head=linear")
        raise UserFault("the source's last layer has no row a class.", [fault])
    weight = weight.detach().flatten(1)
    return weight, bias.detach() if isinstance(bias, Tensor) else weight.new_zeros(len(weight))
