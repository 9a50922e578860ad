"""Weight files: valid, damaged, dangerous, and of other networks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from thaw.config.errors import UserError
from thaw.models.state_dict import read_state


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


def test_tensors_are_read_from_both_formats_and_from_nested_checkpoints(tmp_path: Path) -> None:
    state = {"layer.weight": torch.randn(2, 3), "layer.bias": torch.zeros(2)}
    torch.save(state, tmp_path / "plain.pth")
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "nested.pth")
    save_file(state, tmp_path / "safe.safetensors")
    for name in ("plain.pth", "nested.pth", "safe.safetensors"):
        tensors = read_state(tmp_path / name)
        assert tensors.keys() == state.keys()
        assert all(torch.equal(tensors[key], state[key]) for key in state)


def test_pickled_code_is_rejected_and_not_executed(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2), "object": Payload(tmp_path / "executed")}, tmp_path / "bad.pth")
    with pytest.raises(UserError, match="pickled objects"):
        read_state(tmp_path / "bad.pth")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["truncated.pth", "truncated.safetensors"])
def test_a_truncated_file_is_an_error(tmp_path: Path, name: str) -> None:
    state = {"weight": torch.randn(100, 100)}
    file = tmp_path / name
    torch.save(state, file) if name.endswith("pth") else save_file(state, file)
    file.write_bytes(file.read_bytes()[:20_000])
    with pytest.raises(UserError, match="cannot be read"):
        read_state(file)


def test_a_file_without_named_tensors_is_an_error(tmp_path: Path) -> None:
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    with pytest.raises(UserError, match="no tensors by name"):
        read_state(tmp_path / "list.pth")
