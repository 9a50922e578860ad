"""State dicts: read weight files, fit them to a network, convert between the library's names and thaw's.

Nothing in a file is executed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from thaw.config.errors import Problem, UserError, format_names
from thaw.config.schema import HeadConfig, LinearHeadConfig, SourceRowsHeadConfig
from thaw.models.network import HEAD, Network
from thaw.models.tensor_file import TensorFileError, find_non_finite, find_unusable, load_tensor_file
from thaw.models.tracing import trace_model

NESTED_KEYS = ("state_dict", "model", "model_state_dict", "state_dict_ema")
WRAPPER_PREFIXES = ("module.", "model.", "network.", "backbone.")
OWN_HEAD_PREFIX = "thaw.head."  # tensors of an exported head that the library's network has no place for


def read_state(file: Path) -> dict[str, Tensor]:
    """Read tensors by name, on the CPU, from a .safetensors file or one that torch.save wrote.

    Raises:
        UserError: for a file that is truncated, holds no tensors, or holds pickled code.
    """
    try:
        content = _load_content(file)
    except (TensorFileError, OSError) as error:
        raise _build_unreadable_error(file, str(error)) from error
    tensors = _extract_tensors(content)
    if not tensors:
        raise _build_unreadable_error(file, "it holds no tensors by name")
    if unusable := list(find_unusable(tensors)):
        raise _build_unreadable_error(file, f"tensors of another kind: {format_names(unusable, 3)}")
    if names := find_non_finite(tensors):
        raise _build_unreadable_error(file, f"NaN or infinite values in {format_names(names, 3)}")
    return tensors


def _load_content(file: Path) -> Any:
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(file)
        except SafetensorError as error:
            raise TensorFileError(str(error)) from error
    return load_tensor_file(file)


def _extract_tensors(content: Any) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        return {}
    for key in NESTED_KEYS:
        if isinstance(content.get(key), Mapping):
            return _extract_tensors(content[key])
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def match_state_dict(state: dict[str, Tensor], model: nn.Module, file: Path) -> dict[str, Tensor]:
    """Return the tensors of `state` under the names of `model`, without a wrapper's prefix.

    The last layer keeps the model's own tensors where the file has another number of classes.

    Raises:
        UserError: with the tensors that are missing, unknown or of another shape.
    """
    expected_state = model.state_dict()
    state = {name: value for name, value in state.items() if not name.startswith(OWN_HEAD_PREFIX)}
    state = _strip_prefixes(state, expected_state)
    for name in _find_last_layer_names(expected_state):
        if name not in state or state[name].shape != expected_state[name].shape:
            state[name] = expected_state[name]
    if difference := _describe_difference(state, expected_state):
        valid = f"the {len(expected_state)} tensors of {type(model).__name__}: {format_names(expected_state, 3)}"
        problem = Problem(str(file), difference, valid, "the backbone that the weights were trained with")
        raise UserError("the weights do not fit the backbone.", [problem])
    return state


def _describe_difference(state: Mapping[str, Tensor], expected_state: Mapping[str, Tensor]) -> str:
    common_names = [name for name in expected_state if name in state]
    names_by_problem = {
        "missing": [name for name in expected_state if name not in state],
        "not in the network": [name for name in state if name not in expected_state],
        "of another shape": [name for name in common_names if state[name].shape != expected_state[name].shape],
    }
    return "; ".join(
        f"{len(names)} tensors {label}: {format_names(names, 3)}" for label, names in names_by_problem.items() if names
    )


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
    """Return the names in `network`'s state dict -> those in the state dict of `model`, the library's classifier.

    A head of one linear layer that replaces the library's last layer gets the name of that layer. Any other head has no
    place in the library's network and gets a name of thaw's own.
    """
    is_last_layer_replaced = isinstance(head, LinearHeadConfig | SourceRowsHeadConfig) and head.replaces == "last"
    classifier_path = str(trace_model(model).classifier_node.target) if is_last_layer_replaced else ""
    return {name: _to_library_name(name, classifier_path) for name in network.state_dict()}


def to_library_state_dict(network: Network, model: nn.Module, head: HeadConfig) -> dict[str, Tensor]:
    """Return the tensors of `network` under the library's names.

    A linear head that replaces a 1x1 convolution gets the shape of the convolution.
    """
    name_map, library_state = map_to_library_names(network, model, head), model.state_dict()
    return {
        name_map[own_name]: _unsqueeze_like(value, library_state.get(name_map[own_name]))
        for own_name, value in network.state_dict().items()
    }


def from_library_state_dict(
    network: Network, model: nn.Module, head: HeadConfig, tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return tensors from `to_library_state_dict` as a state dict of `network`.

    A tensor that has no place there keeps its name, and one of another size its shape.
    """
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
