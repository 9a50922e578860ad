"""Weights files with drawn wrappers, prefixes and damage: the source's tensors exactly, or an error for the user."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from thaw.config.errors import UserError
from thaw.models.weights_file import load_weights_file

NUM_FILES = 300
KEYS = [
    "state_dict",
    "model",
    "model_ema",
    "ema",
    "teacher",
    "student",
    "net",
    "params",
    "weights",
    "model_state",
    "a.b",
]
PREFIXES = ["module.", "_orig_mod.", "net.", "model.", "encoder_q.", "backbone.", "student.", "trunk.base.", "0."]
State = dict[str, Tensor]


class SmallNet(nn.Module):
    """A network with a self-similar name: `model.model.0` looks like a prefix, and is none."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.ModuleDict({"model": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))})
        self.module = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
        self.fc = nn.Linear(4, 3)


def change_one(state: State, rng: random.Random, change: Callable[[Tensor], Tensor]) -> State:
    name = rng.choice([name for name, value in state.items() if value.is_floating_point() and "fc" not in name])
    return {**state, name: change(state[name])}


def drop_one(state: State, rng: random.Random) -> State:
    name = rng.choice([name for name in state if not name.startswith("fc") and "num_batches" not in name])
    return {other: value for other, value in state.items() if other != name}


def set_value(tensor: Tensor, value: float) -> Tensor:
    tensor = tensor.clone()
    tensor.view(-1)[-1] = value
    return tensor


STATE_DAMAGE: dict[str, Callable[[State, random.Random], State]] = {
    "missing": drop_one,
    "unknown": lambda state, _: {**state, "layer9.weight": torch.ones(2)},
    "shape": lambda state, rng: change_one(state, rng, lambda value: torch.cat([value, value])),
    "meta": lambda state, rng: change_one(state, rng, lambda value: value.to("meta")),
    "sparse": lambda state, rng: change_one(state, rng, lambda value: value.to_sparse()),
    "nan": lambda state, rng: change_one(state, rng, lambda value: set_value(value, float("nan"))),
    "infinite": lambda state, rng: change_one(state, rng, lambda value: set_value(value, float("-inf"))),
    "integer": lambda state, rng: change_one(state, rng, lambda value: value.to(torch.int32)),
    "complex": lambda state, rng: change_one(state, rng, lambda value: value.to(torch.complex64)),
}
HARMLESS_CHANGES: dict[str, Callable[[State, random.Random], State]] = {
    "none": lambda state, _: state,
    "no counters": lambda state, _: {name: value for name, value in state.items() if "num_batches" not in name},
    "no classifier": lambda state, _: {name: value for name, value in state.items() if not name.startswith("fc")},
    "half": lambda state, _: {
        name: value.half() if value.is_floating_point() else value for name, value in state.items()
    },
    "other classes": lambda state, _: {**state, "fc.weight": torch.ones(9, 4), "fc.bias": torch.ones(9)},
}
LEFTOVERS = [
    b"",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n",
    b"<!doctype html><p>",
    b'{"error": 404}',
]


def wrap(state: State, rng: random.Random) -> Any:
    """Put a state below drawn keys and prefixes, beside other entries."""
    prefix = "".join(rng.choices(PREFIXES, k=rng.randint(0, 2)))
    content: Any = {f"{prefix}{name}": value for name, value in state.items()}
    if rng.random() < 0.5:
        content = dict(rng.sample(list(content.items()), len(content)))
    for _ in range(rng.randint(0, 3)):
        content = {rng.choice(KEYS): content, "epoch": 3, "optimizer": {"state": {0: {"step": torch.ones(1)}}}}
    return content


def wrap_beside_copy(state: State, rng: random.Random) -> Any:
    """Put a state beside a copy of its network with other values, in drawn order."""
    copy = {f"module.{name}": value + 1 for name, value in state.items()}
    content = [("model", state), (rng.choice(["model_ema", "swa", "student"]), copy)]
    return dict(rng.sample(content, 2))


def damage_bytes(file: Path, rng: random.Random) -> None:
    content = bytearray(file.read_bytes())
    kind = rng.choice(["cut", "flip", "leftover"])
    if kind == "cut":
        content = content[: rng.randrange(len(content))]
    elif kind == "flip":
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    else:
        content = bytearray(rng.choice(LEFTOVERS))
    file.write_bytes(bytes(content))


def save(state: State, file: Path, is_damaged: bool, rng: random.Random) -> None:
    has_copy = rng.random() < 0.3 and not is_damaged  # a whole copy would be taken instead of a damaged network
    content = wrap_beside_copy(state, rng) if has_copy else wrap(state, rng)
    if file.suffix == ".safetensors":
        flat = {f"p.{name}": value.contiguous() for name, value in state.items()}
        return save_file(flat, file)
    return torch.save(content, file, _use_new_zipfile_serialization=rng.random() < 0.8)


def draw_file(file_index: int, folder: Path) -> tuple[Path, State, bool, bool]:
    """Return a file, the tensors it was made of, whether it must be refused, and whether its bytes are damaged."""
    rng = random.Random(file_index)
    torch.manual_seed(file_index)
    state: State = {
        name: torch.randn_like(value) if value.is_floating_point() else value
        for name, value in SmallNet().state_dict().items()
    }
    is_damaged, has_damaged_bytes = rng.random() < 0.4, rng.random() < 0.3
    harmless = HARMLESS_CHANGES[rng.choice(list(HARMLESS_CHANGES))](state, rng)
    name = rng.choice(list(STATE_DAMAGE))
    content = STATE_DAMAGE[name](harmless, rng) if is_damaged else harmless
    suffixes = [".pth", ".ckpt"] if is_damaged else [".pth", ".ckpt", ".safetensors"]  # safetensors has no meta tensors
    file = folder / f"{file_index}{rng.choice(suffixes)}"
    save(content, file, is_damaged, rng)
    if has_damaged_bytes:
        damage_bytes(file, rng)
    return file, harmless, is_damaged, has_damaged_bytes


@pytest.mark.long
@pytest.mark.parametrize("file_index", range(NUM_FILES))
def test_a_file_gives_exactly_its_tensors_or_an_error_for_the_user(file_index: int, tmp_path: Path) -> None:
    file, source, must_be_refused, has_damaged_bytes = draw_file(file_index, tmp_path)
    model = SmallNet()
    own = {name: value.clone() for name, value in model.state_dict().items()}
    error = load_into(model, file)
    if error or must_be_refused:
        assert error, "a damaged network was accepted"
        assert must_be_refused or has_damaged_bytes, error
        return
    has_checksums = file.read_bytes()[:2] == b"PK"
    for name, value in model.state_dict().items():
        expected = source.get(name, own[name])
        expected = expected if expected.shape == value.shape else own[name]
        assert value.equal(expected.to(value.dtype)) or (has_damaged_bytes and not has_checksums), name


def load_into(model: nn.Module, file: Path) -> UserError | None:
    try:
        model.load_state_dict(load_weights_file(file, model).tensors)
    except UserError as error:
        return error
    return None
