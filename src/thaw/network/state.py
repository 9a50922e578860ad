"""Weight files -> tensors by name. Nothing in a file is executed."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from thaw.config.faults import Fault, UserFault, listing

NESTED = ("state_dict", "model", "model_state_dict", "state_dict_ema")
PREFIXES = ("module.", "model.", "network.", "backbone.")
OWN_HEAD = "thaw.head."  # of an exported head that the library has no place for, and that is replaced again


def read_state(file: Path) -> dict[str, Tensor]:
    """Tensors by name, on the CPU, from .safetensors or from what torch.save wrote.

    Raises:
        UserFault: for a file that is truncated, holds no tensors, or holds pickled code.
    """
    try:
        content = _content(file)
    except pickle.UnpicklingError as error:
        raise _unreadable(file, "it holds pickled objects beside tensors, which would have to be executed") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, struct.error) as error:
        raise _unreadable(file, str(error).strip().splitlines()[0]) from error
    tensors = _tensors(content)
    if not tensors:
        raise _unreadable(file, "it holds no tensors by name")
    return tensors


def _content(file: Path) -> Any:
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(file)
        except SafetensorError as error:
            raise ValueError(str(error)) from error
    return torch.load(file, map_location="cpu", weights_only=True)


def _tensors(content: Any) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        return {}
    for key in NESTED:
        if isinstance(content.get(key), Mapping):
            return _tensors(content[key])
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def fitted(state: dict[str, Tensor], model: nn.Module, file: Path) -> dict[str, Tensor]:
    """`state` under the names of `model`, without a wrapper's prefix; the last layer's rows are the model's own where
    the file has another number of classes.

    Raises:
        UserFault: naming the tensors that are missing, unknown or of another shape.
    """
    wanted = model.state_dict()
    state = {name: value for name, value in state.items() if not name.startswith(OWN_HEAD)}
    state = _unwrapped(state, wanted)
    last = _last_layer(wanted)
    for name in last:
        if name not in state or state[name].shape != wanted[name].shape:
            state[name] = wanted[name]
    missing, unknown = [name for name in wanted if name not in state], [name for name in state if name not in wanted]
    shapes = [name for name in wanted if name in state and state[name].shape != wanted[name].shape]
    if missing or unknown or shapes:
        rows = {"missing": missing, "not in the network": unknown, "of another shape": shapes}
        got = "; ".join(f"{len(names)} tensors {label}: {listing(names, 3)}" for label, names in rows.items() if names)
        valid = f"the {len(wanted)} tensors of {type(model).__name__}: {listing(wanted, 3)}"
        raise UserFault(
            "the weights do not fit the backbone.", [Fault(str(file), got, valid, "the backbone they were made with")]
        )
    return state


def _unwrapped(state: dict[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES:
        stripped = {name.removeprefix(prefix): value for name, value in state.items()}
        if len(stripped.keys() & wanted.keys()) > len(state.keys() & wanted.keys()):
            return _unwrapped(stripped, wanted)
    return dict(state)


def _last_layer(wanted: Mapping[str, Tensor]) -> list[str]:
    matrices = [name for name, value in wanted.items() if value.ndim >= 2]
    layer = matrices[-1].rpartition(".")[0]
    return [name for name in wanted if name.rpartition(".")[0] == layer]


def _unreadable(file: Path, reason: str) -> UserFault:
    fix = "a file of tensors alone: torch.save(model.state_dict(), FILE), or safetensors"
    return UserFault("the weights cannot be read.", [Fault(str(file), reason, "tensors by name", fix)])
