"""Name stages so that a person can type them: by the library where its names are words, else stem, block1 .., final."""

from __future__ import annotations

import re

from torch import fx, nn

from thaw.models.tracing import count_weight_layers, get_node_parameters, is_within

RESERVED_NAMES = ("all", "backbone", "head")  # strategies use these words for other things


def name_stages(model: nn.Module, groups: list[list[fx.Node]], blocks: set[fx.Node], container_path: str) -> list[str]:
    """Return one name per stage; a stage is a group of nodes.

    `blocks` are the nodes that make stages: the stem comes before the first, the final layers come after the last.
    Without blocks each stage is a block. `container_path` is the path of the module around the classifier: a stage of
    layers from inside it gets its name.
    """
    is_block = [not blocks.isdisjoint(group) for group in groups]
    last_block = max((index for index, contains_block in enumerate(is_block) if contains_block), default=len(groups))
    words = _drop_block_numbers([_choose_word(model, group, container_path) for group in groups])
    names: list[str] = []
    for number, word in enumerate(words):
        if number == 0 and ((blocks and not is_block[0]) or not _is_in_series(word, words[1:])):
            name = "stem"
        elif word in RESERVED_NAMES or (word == "block" and number > last_block):
            name = "final"
        else:
            name = word if word != "block" else f"block{1 + sum(other.startswith('block') for other in names)}"
        names.append(_make_unique(name, names))
    return names


def _choose_word(model: nn.Module, group: list[fx.Node], container_path: str) -> str:
    """Return the library's word for the blocks of a stage, or for its first layer; `block` where that is a number."""
    layer_nodes = [node for node in group if node.op == "call_module" and get_node_parameters(model, node)]
    block_nodes = [node for node in layer_nodes if count_weight_layers(model, node) > 1]
    paths = [str(node.target) for node in block_nodes or layer_nodes[:1]]
    if not paths:
        return "block"
    if is_within(paths[0], container_path):
        return container_path.rpartition(".")[2]
    return _find_shared_word([path.rpartition(".")[2] for path in paths])


def _find_shared_word(words: list[str]) -> str:
    """Return `Mixed5` for `Mixed_5b` and `Mixed_5c`; `block` for names that are an index."""
    if re.fullmatch(r"\d+|.*_\d+", words[0]) and len(words) == 1:
        return "block"
    prefix = _find_common_prefix(words).rstrip("_")
    if re.fullmatch(r"[A-Za-z]\w*\d", prefix):
        return re.sub(r"_(\d+)$", r"\1", prefix)
    return words[0] if len(words) == 1 or not re.search(r"\d", words[0]) else "block"


def _find_common_prefix(words: list[str]) -> str:
    """Return the letters that all words begin with; comparing the first and the last by alphabet is enough."""
    first, last = min(words), max(words)
    return first[: next((index for index, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]


def _drop_block_numbers(words: list[str]) -> list[str]:
    """Drop the library's block numbers where stages without a name are numbered too."""
    return ["block" if "block" in words and re.fullmatch(r"block\d+", word) else word for word in words]


def _is_in_series(word: str, other_words: list[str]) -> bool:
    """Return whether another stage has the same name apart from its number: `layer0` before `layer1`."""
    series = word.rstrip("0123456789")
    return any(
        other_word.rstrip("0123456789") == series and (other_word != word or word == "block")
        for other_word in other_words
    )


def _make_unique(name: str, names: list[str]) -> str:
    """Append a number to a name that exists: `norm`, then `norm2`."""
    numbered_names = (f"{name}{number}" for number in range(2, len(names) + 3))
    return next(candidate for candidate in [name, *numbered_names] if candidate not in names)
