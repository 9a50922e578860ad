"""A network's tensors under the names that the source library has for them, so that others can load them too."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from thaw.config.schema import HeadConfig, LinearHeadConfig, SourceRowsHeadConfig
from thaw.network.network import HEAD, Network
from thaw.network.state import OWN_HEAD_PREFIX
from thaw.network.tracing import trace_model


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
