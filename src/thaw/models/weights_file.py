"""Find the tensors of a network in a weights file of any code: below other keys and under other prefixes.

Nothing in a file is executed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from thaw.config.errors import Problem, UserError, format_count, format_names
from thaw.models.state_dict import OWN_HEAD_PREFIX, build_unreadable_error, load_content
from thaw.models.tensor_file import FLOAT_DTYPES, find_non_finite, find_unusable

MIN_FRACTION = 0.5  # of the tensors of a network; a file with fewer was not made from it
# Segments that wrappers put anywhere into a name: torch.compile, activation checkpoints, FSDP.
WRAPPER_SEGMENTS = {"_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"}
# Words of a key or prefix that mark a copy of the trained network: an average of its weights, the student of a teacher,
# the slowly moving copy of contrastive learning (MoCo's encoder_k, BYOL's target).
COPY_WORDS = {"ema", "swa", "averaged", "average", "avg", "student", "momentum", "target", "k", "copy"}
PLAIN_FIX = "the network's state dict, saved before it was quantized, made sparse or moved to the meta device"
FINITE_FIX = "another file, such as the checkpoint of an earlier epoch"
COUNTER_SUFFIX = "num_batches_tracked"  # BatchNorm uses it only without a momentum; files before torch 0.4.1 lack it


@dataclass(frozen=True)
class WeightsFile:
    """The tensors of a network, found in `file`, under the names that the network has for them.

    `prefix` is what stands before the names in the file: the keys of nested mappings and the prefixes of wrappers,
    joined by dots. `other_prefixes` are those of copies of the network that were not taken. `random_names` are the
    tensors of the last layer that are the network's own, because the file has none of their shape.
    """

    file: Path
    tensors: dict[str, Tensor]
    prefix: str
    other_prefixes: tuple[str, ...]
    random_names: tuple[str, ...]

    def describe(self) -> str:
        """Describe in a line which of the file's tensors were taken; empty where they have the network's names."""
        if not self.prefix:
            return ""
        others = f"; not taken, as copies: {format_names(self.other_prefixes)}" if self.other_prefixes else ""
        return f"weights {self.file.name}: the tensors under {self.prefix}{others}"


@dataclass(frozen=True)
class _Entry:
    """A tensor of the file, and the number of the mapping that holds it."""

    tensor: Tensor
    mapping: int


@dataclass(frozen=True)
class _Candidate:
    """A network in the file: names of the model -> names in the file, where the shapes agree or not."""

    prefix: str
    names: dict[str, str]
    num_fitting: int
    has_last_layer: bool

    @property
    def rank(self) -> tuple[int, bool, bool]:
        """Order by the number of tensors that fit, trained weights before copies, files with the last layer first."""
        words = set(re.split(r"[._]", self.prefix.lower()))
        return -self.num_fitting, not words.isdisjoint(COPY_WORDS), not self.has_last_layer


def load_weights_file(file: Path, model: nn.Module, ignored_segments: frozenset[str] = frozenset()) -> WeightsFile:
    """Load the tensors of `model` from a file of torch.save or safetensors.

    The network is the prefix under which most tensors have a name and a shape of `model`. Among several, trained
    weights come before copies (averages, the student of a teacher, MoCo's encoder_k). BatchNorm's counters may be
    missing. The last layer keeps the model's own tensors where the file has another number of classes. Names with one
    of `ignored_segments` are left out.

    Raises:
        UserError: for a file that cannot be read; with the tensors that are missing, unknown, of another shape or
            unusable; for a file with several networks that fit.
    """
    content = load_content(file)
    if isinstance(content, Mapping) and isinstance(content.get("thaw"), Mapping):
        raise _build_own_checkpoint_error(file)
    entries = _collect_tensors(content)
    entries = {name: entry for name, entry in entries.items() if ignored_segments.isdisjoint(name.split("."))}
    if not entries:
        raise build_unreadable_error(file, "it holds no tensors by name")
    expected = model.state_dict()
    last_layer_path = _find_last_layer_path(expected)
    candidates = sorted(_find_candidates(entries, expected, last_layer_path), key=lambda candidate: candidate.rank)
    if not candidates or len(candidates[0].names) < MIN_FRACTION * len(expected):
        raise _build_misfit_error(file, model, [_describe_content(entries)])
    chosen, *others = [other for other in candidates if other.num_fitting == candidates[0].num_fitting]
    _check_single_choice(file, entries, [other for other in (chosen, *others) if other.rank == chosen.rank])
    if problems := list(_find_differences(entries, chosen, expected, last_layer_path)):
        raise _build_misfit_error(file, model, problems)
    tensors = {name: entries[file_name].tensor for name, file_name in chosen.names.items()}
    random_names = tuple(
        name for name in expected if name not in tensors or not _has_shape(tensors[name], expected[name])
    )
    tensors = {name: tensor for name, tensor in tensors.items() if name not in random_names}
    _check_values(file, tensors, expected)
    own_tensors = {name: expected[name] for name in random_names}
    return WeightsFile(
        file,
        {**tensors, **own_tensors},
        chosen.prefix,
        tuple(other.prefix for other in others),
        tuple(name for name in random_names if not name.endswith(COUNTER_SUFFIX)),
    )


def _collect_tensors(content: Any) -> dict[str, _Entry]:
    """Return all tensors of nested mappings, by their keys joined by dots."""
    entries: dict[str, _Entry] = {}
    pending: list[tuple[str, Mapping[Any, Any]]] = [("", content)] if isinstance(content, Mapping) else []
    visited_ids = {id(content)}  # a mapping may hold itself
    for index, (path, mapping) in enumerate(pending):
        for key, value in mapping.items():
            name = f"{path}.{key}" if path else str(key)
            if isinstance(value, Tensor):
                entries[name] = _Entry(value, index)
            elif isinstance(value, Mapping) and id(value) not in visited_ids:
                visited_ids.add(id(value))
                pending.append((name, value))
    return entries


def _find_candidates(
    entries: Mapping[str, _Entry], expected: Mapping[str, Tensor], last_layer_path: str
) -> Iterator[_Candidate]:
    names_by_prefix: dict[str, dict[str, str]] = {}
    for file_name in entries:
        for prefix, name in _iter_splits(file_name):
            if name in expected:
                names_by_prefix.setdefault(prefix, {}).setdefault(name, file_name)
    for prefix, names in names_by_prefix.items():
        fitting = [name for name in names if _has_shape(entries[names[name]].tensor, expected[name])]
        num_fitting = sum(not (_is_counter(name) or _is_below(name, last_layer_path)) for name in fitting)
        yield _Candidate(prefix, names, num_fitting, any(_is_below(name, last_layer_path) for name in fitting))


def _iter_splits(file_name: str) -> Iterator[tuple[str, str]]:
    """Yield each prefix of a name with the rest, without the segments of wrappers."""
    segments = file_name.split(".")
    for index, segment in enumerate(segments):
        if segment not in WRAPPER_SEGMENTS:
            rest = [other for other in segments[index:] if other not in WRAPPER_SEGMENTS]
            yield ".".join(segments[:index]), ".".join(rest)


def _has_shape(tensor: Tensor, expected: Tensor) -> bool:
    return not tensor.is_nested and tensor.shape == expected.shape


def _is_counter(name: str) -> bool:
    return name.endswith(COUNTER_SUFFIX)


def _is_below(name: str, path: str) -> bool:
    return name.startswith(f"{path}.")


def _find_last_layer_path(expected: Mapping[str, Tensor]) -> str:
    matrix_names = [name for name, value in expected.items() if value.ndim >= 2]
    return matrix_names[-1].rpartition(".")[0]


def _find_differences(
    entries: Mapping[str, _Entry], candidate: _Candidate, expected: Mapping[str, Tensor], last_layer_path: str
) -> Iterator[str]:
    """Yield how the tensors of a candidate differ from those of the network, the last layer and counters aside."""
    mappings = {entries[name].mapping for name in candidate.names.values()}
    taken = set(candidate.names.values())
    prefix = f"{candidate.prefix}." if candidate.prefix else ""
    unknown = [
        name.removeprefix(prefix)
        for name, entry in entries.items()
        if entry.mapping in mappings and name.startswith(prefix) and name not in taken
    ]
    names_by_problem = {
        "missing": [name for name in expected if name not in candidate.names and not _is_counter(name)],
        "not in the network": [name for name in unknown if not name.startswith(OWN_HEAD_PREFIX)],
        "of another shape": [
            name
            for name, file_name in candidate.names.items()
            if not _has_shape(entries[file_name].tensor, expected[name])
        ],
    }
    for label, names in names_by_problem.items():
        if names := [name for name in names if not _is_below(name, last_layer_path)]:
            yield f"{format_count(len(names), 'tensor')} {label}: {format_names(names, 3)}"


def _check_single_choice(file: Path, entries: Mapping[str, _Entry], candidates: list[_Candidate]) -> None:
    """Raise UserError if the candidates are different networks: nothing says which of them is meant."""
    first = candidates[0]
    for other in candidates[1:]:
        pairs = [(entries[name].tensor, entries[other.names[key]].tensor) for key, name in first.names.items()]
        if any(not _is_same(tensor, other_tensor) for tensor, other_tensor in pairs):
            got = f"networks that fit under {format_names(candidate.prefix or 'no key' for candidate in candidates)}"
            fix = "a file of one of them: torch.save(network.state_dict(), FILE)"
            raise UserError("the weights could be one of several.", [Problem(str(file), got, "one network", fix)])


def _is_same(tensor: Tensor, other: Tensor) -> bool:
    return not any(find_unusable({"": tensor, " ": other})) and tensor.equal(other)


def _check_values(file: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise UserError for tensors that are no plain numbers, not of the network's kind, or not finite in its dtype."""
    if unusable := list(find_unusable(tensors)):
        raise build_unreadable_error(file, f"tensors of another kind: {format_names(unusable, 3)}", PLAIN_FIX)
    other_kinds = [
        f"{name} ({tensor.dtype})"
        for name, tensor in tensors.items()
        if (tensor.dtype in FLOAT_DTYPES) != (expected[name].dtype in FLOAT_DTYPES)
    ]
    if other_kinds:
        raise build_unreadable_error(file, f"tensors of another kind: {format_names(other_kinds, 3)}", PLAIN_FIX)
    if names := find_non_finite({name: tensor.to(expected[name].dtype) for name, tensor in tensors.items()}):
        raise build_unreadable_error(file, f"NaN or infinite values in {format_names(names, 3)}", FINITE_FIX)


def _describe_content(entries: Mapping[str, _Entry]) -> str:
    counts = Counter(name.partition(".")[0] for name in entries)
    keys = [f"{key} ({format_count(count, 'tensor')})" for key, count in counts.items()]
    return f"no network with these names; the file's keys: {format_names(keys, 5)}"


def _build_own_checkpoint_error(file: Path) -> UserError:
    export = file.with_suffix(".safetensors")
    fix = f"thaw export {file} --format safetensors --out {export}, then backbone.weights={export}"
    got = "a checkpoint of thaw, whose tensors have the names of its stages"
    return UserError("the weights do not fit the backbone.", [Problem(str(file), got, "the names of the library", fix)])


def _build_misfit_error(file: Path, model: nn.Module, differences: list[str]) -> UserError:
    expected = model.state_dict()
    valid = f"the {len(expected)} tensors of {type(model).__name__}: {format_names(expected, 3)}"
    problem = Problem(str(file), "; ".join(differences), valid, "the backbone that the weights were trained with")
    return UserError("the weights do not fit the backbone.", [problem])
