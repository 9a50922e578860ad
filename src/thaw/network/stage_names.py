"""Stages -> names that a person can type: the library's own where it is a word, else `stem`, `block1` .., `final`."""

from __future__ import annotations

import re

from torch import fx, nn

from thaw.network.tracing import depth, parameters, within

RESERVED = ("all", "backbone", "head")  # what strategies call other things


def stage_names(model: nn.Module, groups: list[list[fx.Node]], blocks: set[fx.Node], container: str) -> list[str]:
    """One name a stage. `blocks` are the nodes that make stages, before the first of which is the stem, behind the last
    the final layers; without any, each stage is a block. `container` is the path of the module around the classifier:
    what is left of it bears its name."""
    anchored = [not blocks.isdisjoint(group) for group in groups]
    last_block = max((index for index, one in enumerate(anchored) if one), default=len(groups))
    words = _renumbered([_word(model, group, container) for group in groups])
    names: list[str] = []
    for number, word in enumerate(words):
        if number == 0 and ((blocks and not anchored[0]) or not _in_series(word, words[1:])):
            name = "stem"
        elif word in RESERVED or (word == "block" and number > last_block):
            name = "final"
        else:
            name = word if word != "block" else f"block{1 + sum(one.startswith('block') for one in names)}"
        names.append(_unique(name, names))
    return names


def _word(model: nn.Module, group: list[fx.Node], container: str) -> str:
    """What the library calls the first block of a stage, or its first layer; `block` where that is a number."""
    calls = [node for node in group if node.op == "call_module" and parameters(model, node)]
    paths = [str(node.target) for node in [one for one in calls if depth(model, one) > 1] or calls[:1]]
    if not paths:
        return "block"
    if within(paths[0], container):
        return container.rpartition(".")[2]
    return _shared([path.rpartition(".")[2] for path in paths])


def _shared(words: list[str]) -> str:
    """`Mixed5` of `Mixed_5b` and `Mixed_5c`; `block` of what has an index for a name."""
    if re.fullmatch(r"\d+|.*_\d+", words[0]) and len(words) == 1:
        return "block"
    shared = _prefix(words).rstrip("_")
    if re.fullmatch(r"[A-Za-z]\w*\d", shared):
        return re.sub(r"_(\d+)$", r"\1", shared)
    return words[0] if len(words) == 1 or not re.search(r"\d", words[0]) else "block"


def _prefix(words: list[str]) -> str:
    """The letters that all begin with: two words differ most if they are the first and the last by alphabet."""
    first, last = min(words), max(words)
    return first[: next((place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]


def _renumbered(words: list[str]) -> list[str]:
    """Where a run of blocks has no name of its own, the library's numbers are not ours."""
    return ["block" if "block" in words and re.fullmatch(r"block\d+", word) else word for word in words]


def _in_series(word: str, others: list[str]) -> bool:
    """Whether another stage is called the same but for its number: `layer0` before `layer1`."""
    series = word.rstrip("0123456789")
    return any(one.rstrip("0123456789") == series and (one != word or word == "block") for one in others)


def _unique(name: str, names: list[str]) -> str:
    """`norm`, then `norm2`."""
    numbered = (f"{name}{number}" for number in range(2, len(names) + 3))
    return next(one for one in [name, *numbered] if one not in names)
