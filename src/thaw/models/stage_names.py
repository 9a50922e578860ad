"""Stages -> names that a person can type: the library's own where it is a word, else `stem`, `block1` .., `final`."""

from __future__ import annotations

import re

from torch import fx, nn

from thaw.models.tracing import count_weight_layers, get_node_parameters, is_within

RESERVED_NAMES = ("all", "backbone", "head")  # what strategies call other things


def name_stages(model: nn.Module, groups: list[list[fx.Node]], blocks: set[fx.Node], container_path: str) -> list[str]:
    """One name a stage. `blocks` are the nodes that make stages, before the first of which is the stem, behind the last
    the final layers; without any, each stage is a block. `container` is the path of the module around the classifier:
    what is left of it bears its name."""
    has_block = [not blocks.isdisjoint(group) for group in groups]
    last_block = max((index for index, entry in enumerate(has_block) if entry), default=len(groups))
    words = _drop_block_numbers([_choose_word(model, group, container_path) for group in groups])
    names: list[str] = []
    for number, word in enumerate(words):
        if number == 0 and ((blocks and not has_block[0]) or not _is_in_series(word, words[1:])):
            name = "stem"
        elif word in RESERVED_NAMES or (word == "block" and number > last_block):
            name = "final"
        else:
            name = word if word != "block" else f"block{1 + sum(entry.startswith('block') for entry in names)}"
        names.append(_make_unique(name, names))
    return names


def _choose_word(model: nn.Module, group: list[fx.Node], container_path: str) -> str:
    """What the library calls the first block of a stage, or its first layer; `block` where that is a number."""
    called_nodes = [node for node in group if node.op == "call_module" and get_node_parameters(model, node)]
    paths = [
        str(node.target)
        for node in [called_node for called_node in called_nodes if count_weight_layers(model, called_node) > 1]
        or called_nodes[:1]
    ]
    if not paths:
        return "block"
    if is_within(paths[0], container_path):
        return container_path.rpartition(".")[2]
    return _find_shared_word([path.rpartition(".")[2] for path in paths])


def _find_shared_word(words: list[str]) -> str:
    """`Mixed5` of `Mixed_5b` and `Mixed_5c`; `block` of what has an index for a name."""
    if re.fullmatch(r"\d+|.*_\d+", words[0]) and len(words) == 1:
        return "block"
    prefix = _find_common_prefix(words).rstrip("_")
    if re.fullmatch(r"[A-Za-z]\w*\d", prefix):
        return re.sub(r"_(\d+)$", r"\1", prefix)
    return words[0] if len(words) == 1 or not re.search(r"\d", words[0]) else "block"


def _find_common_prefix(words: list[str]) -> str:
    """The letters that all begin with: two words differ most if they are the first and the last by alphabet."""
    first, last = min(words), max(words)
    return first[: next((index for index, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]


def _drop_block_numbers(words: list[str]) -> list[str]:
    """Where a run of blocks has no name of its own, the library's numbers are not ours."""
    return ["block" if "block" in words and re.fullmatch(r"block\d+", word) else word for word in words]


def _is_in_series(word: str, other_words: list[str]) -> bool:
    """Whether another stage is called the same but for its number: `layer0` before `layer1`."""
    series = word.rstrip("0123456789")
    return any(
        other_word.rstrip("0123456789") == series and (other_word != word or word == "block")
        for other_word in other_words
    )


def _make_unique(name: str, names: list[str]) -> str:
    """`norm`, then `norm2`."""
    numbered_names = (f"{name}{number}" for number in range(2, len(names) + 3))
    return next(candidate for candidate in [name, *numbered_names] if candidate not in names)
