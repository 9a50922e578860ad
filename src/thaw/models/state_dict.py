"""Weight files -> tensors by name. Nothing in a file is executed."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from thaw.config.errors import Problem, UserError, format_names
from thaw.config.schema import HeadConfig, LinearHeadConfig, SourceRowsHeadConfig
from thaw.models.network import HEAD, Network
from thaw.models.tracing import trace_model

NESTED_KEYS = ("state_dict", "model", "model_state_dict", "state_dict_ema")
WRAPPER_PREFIXES = ("module.", "model.", "network.", "backbone.")
OWN_HEAD_PREFIX = "thaw.head."  # of an exported head that the library has no place for, and that is replaced again


def read_state(file: Path) -> dict[str, Tensor]:
    """Tensors by name, on the CPU, from .safetensors or from what torch.save wrote.

    Raises:
        UserFault: for a file that is truncated, holds no tensors, or holds pickled code.
    """
    try:
        content = _load_content(file)
    except pickle.UnpicklingError as error:
        raise _build_unreadable_error(
            file, "it holds pickled objects beside tensors, which would have to be executed"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, struct.error) as error:
        raise _build_unreadable_error(file, str(error).strip().splitlines()[0]) from error
    tensors = _extract_tensors(content)
    if not tensors:
        raise _build_unreadable_error(file, "it holds no tensors by name")
    return tensors


def _load_content(file: Path) -> Any:
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(file)
        except SafetensorError as error:
            raise ValueError(str(error)) from error
    return torch.load(file, map_location="cpu", weights_only=True)


def _extract_tensors(content: Any) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        return {}
    for key in NESTED_KEYS:
        if isinstance(content.get(key), Mapping):
            return _extract_tensors(content[key])
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def match_state_dict(state: dict[str, Tensor], model: nn.Module, file: Path) -> dict[str, Tensor]:
    """`state` under the names of `model`, without a wrapper's prefix; the last layer's rows are the model's own where
    the file has another number of classes.

    Raises:
        UserFault: naming the tensors that are missing, unknown or of another shape.
    """
    expected_state = model.state_dict()
    state = {name: value for name, value in state.items() if not name.startswith(OWN_HEAD_PREFIX)}
    state = _strip_prefixes(state, expected_state)
    last_layer_names = _find_last_layer_names(expected_state)
    for name in last_layer_names:
        if name not in state or state[name].shape != expected_state[name].shape:
            state[name] = expected_state[name]
    missing, unknown = (
        [name for name in expected_state if name not in state],
        [name for name in state if name not in expected_state],
    )
    mismatched = [name for name in expected_state if name in state and state[name].shape != expected_state[name].shape]
    if missing or unknown or mismatched:
        names_by_problem = {"missing": missing, "not in the network": unknown, "of another shape": mismatched}
        got = "; ".join(
            f"{len(names)} tensors {label}: {format_names(names, 3)}"
            for label, names in names_by_problem.items()
            if names
        )
        valid = f"the {len(expected_state)} tensors of {type(model).__name__}: {format_names(expected_state, 3)}"
        raise UserError(
            "the weights do not fit the backbone.", [Problem(str(file), got, valid, "the backbone they were made with")]
        )
    return state


def _strip_prefixes(state: dict[str, Tensor], expected_state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    for prefix in WRAPPER_PREFIXES:
        stripped = {name.removeprefix(prefix): value for name, value in state.items()}
        if len(stripped.keys() & expected_state.keys()) > len(state.keys() & expected_state.keys()):
            return _strip_prefixes(stripped, expected_state)
    return dict(state)


def _find_last_layer_names(expected_state: Mapping[str, Tensor]) -> list[str]:
    matrix_names = [name for name, value in expected_state.items() if value.ndim >= 2]
    layer_path = matrix_names[-1].rpartition(".")[0]
    return [name for name in expected_state if name.rpartition(".")[0] == layer_path]


def _build_unreadable_error(file: Path, reason: str) -> UserError:
    fix = "a file of tensors alone: torch.save(model.state_dict(), FILE), or safetensors"
    return UserError("the weights cannot be read.", [Problem(str(file), reason, "tensors by name", fix)])


def map_to_library_names(network: Network, model: nn.Module, head: HeadConfig) -> dict[str, str]:
    """Names in `network`'s state -> those in the state of `model`, the library's classifier that it was cut from. A
    head of one linear layer in the place of the library's last one has the name of that; any other, which no library
    has a place for, a name of thaw's own."""
    is_last_layer_replaced = isinstance(head, LinearHeadConfig | SourceRowsHeadConfig) and head.replaces == "last"
    classifier_path = str(trace_model(model).classifier_node.target) if is_last_layer_replaced else ""
    return {name: _to_library_name(name, classifier_path) for name in network.state_dict()}


def to_library_state_dict(network: Network, model: nn.Module, head: HeadConfig) -> dict[str, Tensor]:
    """The tensors of `network`; a linear head in place of a 1x1 convolution has the shape of one."""
    name_map, library_state = map_to_library_names(network, model, head), model.state_dict()
    return {
        name_map[own_name]: _unsqueeze_like(value, library_state.get(name_map[own_name]))
        for own_name, value in network.state_dict().items()
    }


def from_library_state_dict(
    network: Network, model: nn.Module, head: HeadConfig, tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """What `under_library_names` gave, as the state of `network`; a tensor that has no place there keeps its name, and
    one of another size its shape."""
    own_names = {library_name: name for name, library_name in map_to_library_names(network, model, head).items()}
    expected_state = network.state_dict()
    return {
        own_names.get(name, name): _reshape_like(value, expected_state.get(own_names.get(name, name)))
        for name, value in tensors.items()
    }


def _reshape_like(value: Tensor, expected: Tensor | None) -> Tensor:
    return value if expected is None or value.numel() != expected.numel() else value.reshape(expected.shape)


def _to_library_name(own_name: str, classifier_path: str) -> str:
    part, _, inner_name = own_name.partition(".")
    if part != HEAD:
        return inner_name.partition(".")[2]  # stages.STAGE.NAME
    return f"{classifier_path}.{inner_name.rpartition('.')[2]}" if classifier_path else f"{OWN_HEAD_PREFIX}{inner_name}"


def _unsqueeze_like(value: Tensor, library_tensor: Tensor | None) -> Tensor:
    if library_tensor is None or library_tensor.ndim == value.ndim:
        return value
    return value.reshape(value.shape + (1,) * (library_tensor.ndim - value.ndim))
