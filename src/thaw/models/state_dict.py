"""State dicts: read files of known names, convert between the library's names and thaw's.

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

OWN_HEAD_PREFIX = "thaw.head."  # tensors of an exported head that the library's network has no place for


def read_state(file: Path) -> dict[str, Tensor]:
    """Read tensors by name, on the CPU, from a .safetensors file or one that torch.save wrote; of a checkpoint its
    `state_dict`.

    Raises:
        UserError: for a file that is damaged, holds no tensors, unusable or infinite ones, or holds pickled code.
    """
    content = load_content(file)
    tensors = _select_tensors(content)
    if not tensors:
        raise build_unreadable_error(file, "it holds no tensors by name")
    if unusable := list(find_unusable(tensors)):
        raise build_unreadable_error(file, f"tensors of another kind: {format_names(unusable, 3)}")
    if names := find_non_finite(tensors):
        raise build_unreadable_error(file, f"NaN or infinite values in {format_names(names, 3)}")
    return tensors


def _select_tensors(content: Any) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        return {}
    state = content.get("state_dict")
    mapping = state if isinstance(state, Mapping) else content
    return {str(name): value for name, value in mapping.items() if isinstance(value, Tensor)}


def load_content(file: Path) -> Any:
    """Load what torch.save or safetensors wrote into `file`, on the CPU.

    Raises:
        UserError: for a file that is damaged, of another format, or holds pickled code.
    """
    try:
        return load_tensor_file(file)
    except TensorFileError as error:
        raise build_unreadable_error(file, str(error), error.fix) from error
    except OSError as error:
        raise build_unreadable_error(file, str(error)) from error


def build_unreadable_error(file: Path, reason: str, fix: str = "") -> UserError:
    """Build the error of a weights file that cannot be read. The usual `fix` is another way to save it."""
    fix = fix or "a file of tensors alone: torch.save(model.state_dict(), FILE), or safetensors"
    return UserError("the weights cannot be read.", [Problem(str(file), reason, "finite tensors by name", fix)])


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
