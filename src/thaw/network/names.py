"""A network's tensors under the names that the source library has for them, so that others can load them too."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from thaw.config.schema import Head, LinearHead, SourceRowsHead
from thaw.network.network import HEAD, Network
from thaw.network.state import OWN_HEAD
from thaw.network.tracing import traced


def library_names(network: Network, model: nn.Module, head: Head) -> dict[str, str]:
    """Names in `network`'s state -> those in the state of `model`, the library's classifier that it was cut from. A
    head of one linear layer in the place of the library's last one has the name of that; any other, which no library
    has a place for, a name of thaw's own."""
    stands_in = isinstance(head, LinearHead | SourceRowsHead) and head.replaces == "last"
    last = str(traced(model).classifier.target) if stands_in else ""
    return {name: _name(name, last) for name in network.state_dict()}


def under_library_names(network: Network, model: nn.Module, head: Head) -> dict[str, Tensor]:
    """The tensors of `network`; a linear head in place of a 1x1 convolution has the shape of one."""
    names, theirs = library_names(network, model, head), model.state_dict()
    return {names[own]: _shaped(value, theirs.get(names[own])) for own, value in network.state_dict().items()}


def under_own_names(network: Network, model: nn.Module, head: Head, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `under_library_names` gave, as the state of `network`; a tensor that has no place there keeps its name, and
    one of another size its shape."""
    own = {theirs: name for name, theirs in library_names(network, model, head).items()}
    wanted = network.state_dict()
    return {own.get(name, name): _as(value, wanted.get(own.get(name, name))) for name, value in tensors.items()}


def _as(value: Tensor, wanted: Tensor | None) -> Tensor:
    return value if wanted is None or value.numel() != wanted.numel() else value.reshape(wanted.shape)


def _name(own: str, last: str) -> str:
    part, _, inside = own.partition(".")
    if part != HEAD:
        return inside.partition(".")[2]  # stages.STAGE.NAME
    return f"{last}.{inside.rpartition('.')[2]}" if last else f"{OWN_HEAD}{inside}"


def _shaped(value: Tensor, theirs: Tensor | None) -> Tensor:
    if theirs is None or theirs.ndim == value.ndim:
        return value
    return value.reshape(value.shape + (1,) * (theirs.ndim - value.ndim))
