"""Checkpoints with a hundred kinds of damage: each is refused with a message, or predicts as the sound one does."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import run_thaw
from thaw.config.errors import UserError
from thaw.inference.load import load_checkpoint
from thaw.models.state_dict import read_state
from thaw.training.callbacks.checkpointing import AtomicCheckpointIO

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore")]
INPUTS_PER_KIND = 10
ODD_VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        -1,
        0,
        1,
        10**9,
        10**30,
        -0.0,
        1e-30,
        1e300,
        float("nan"),
        float("-inf"),
        "",
        "x",
        "../x",
        "\0",
        "\x1b[2J",
    ),
    *([], [[]], [None], {}, {"a": 1}, "9" * 5000, ["A", "A"], ["A"] * 3, "A", b"\x00"),
)
Generator = np.random.Generator


def flip_bits(file: Path, rng: Generator) -> None:
    content = bytearray(file.read_bytes())
    for position in rng.integers(0, len(content), rng.integers(1, 4)):
        content[position] ^= 1 << int(rng.integers(0, 8))
    file.write_bytes(content)


def flip_a_bit_of_the_directory(file: Path, rng: Generator) -> None:
    """Flip a bit among names, offsets and sizes, which no checksum covers."""
    content = bytearray(file.read_bytes())
    start = content.rindex(b"PK\x05\x06")
    first = int.from_bytes(content[start + 16 : start + 20], "little")
    first = content.index(b"PK\x01\x02") if first >= len(content) else first
    content[int(rng.integers(first, len(content)))] ^= 1 << int(rng.integers(0, 8))
    file.write_bytes(content)


def overwrite_a_block(file: Path, rng: Generator) -> None:
    content = bytearray(file.read_bytes())
    start, length = int(rng.integers(0, len(content))), int(rng.integers(1, 5000))
    content[start : start + length] = (
        rng.bytes(len(content[start : start + length]))
        if rng.random() < 0.5
        else bytes(len(content[start : start + length]))
    )
    file.write_bytes(content)


def truncate(file: Path, rng: Generator) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * rng.random() ** 0.5)])


def insert_or_remove_bytes(file: Path, rng: Generator) -> None:
    content, start, length = file.read_bytes(), 0, int(rng.integers(1, 300))
    start = int(rng.integers(0, len(content)))
    inserted = rng.bytes(length) if rng.random() < 0.5 else b""
    file.write_bytes(content[:start] + inserted + content[start + (0 if inserted else length) :])


def change_content(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = torch.load(file, weights_only=True)
    change(content)
    torch.save(content, file)


def put_in_values_that_are_not_finite(file: Path, rng: Generator) -> None:
    def change(content: dict[str, Any]) -> None:
        floats = [tensor for tensor in content["state_dict"].values() if tensor.is_floating_point()]
        tensor = floats[int(rng.integers(0, len(floats)))].view(-1)
        tensor[int(rng.integers(0, len(tensor)))] = float(rng.choice([np.nan, np.inf, -np.inf]))

    change_content(file, change)


def swap_tensors(file: Path, rng: Generator) -> None:
    def change(content: dict[str, Any]) -> None:
        state = content["state_dict"]
        names = [name for name in state if state[name].ndim]
        name = names[int(rng.integers(0, len(names)))]
        others = [other for other in names if state[other].shape == state[name].shape and other != name]
        if others and rng.random() < 0.7:
            other = others[int(rng.integers(0, len(others)))]
            state[name], state[other] = state[other], state[name]
        else:
            state[name] = state[name].flip(0) + 1e-3

    change_content(file, change)


def replace_a_tensor(file: Path, rng: Generator) -> None:
    replacements: list[Callable[[torch.Tensor], Any]] = [
        lambda tensor: tensor.to_sparse(),
        lambda tensor: torch.empty_like(tensor, device="meta"),
        lambda tensor: torch.quantize_per_tensor(tensor.float(), 0.1, 0, torch.qint8),
        lambda tensor: tensor.to(torch.complex64),
        lambda tensor: tensor.to(torch.int64),
        lambda tensor: tensor.to(torch.float8_e4m3fn),
        lambda tensor: tensor[None],
        lambda tensor: tensor.expand(7, *tensor.shape),
        lambda _: torch.zeros(()),
        lambda tensor: tensor.tolist(),
        lambda _: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
    ]

    def change(content: dict[str, Any]) -> None:
        state = content["state_dict"]
        names = [name for name in state if state[name].ndim]
        name = names[int(rng.integers(0, len(names)))]
        state[name] = replacements[int(rng.integers(0, len(replacements)))](state[name])

    change_content(file, change)


def change_the_metadata(file: Path, rng: Generator) -> None:
    def change(content: dict[str, Any]) -> None:
        section: Any = content["thaw"]
        while True:
            keys = list(section) if isinstance(section, Mapping) else list(range(len(section)))
            key = keys[int(rng.integers(0, len(keys)))]
            if not isinstance(section[key], dict | list) or not section[key] or rng.random() < 0.2:
                break
            section = section[key]
        if isinstance(section, dict) and rng.random() < 0.2:
            section.pop(key)
        else:
            section[key] = ODD_VALUES[int(rng.integers(0, len(ODD_VALUES)))]

    change_content(file, change)


def rewrite_the_archive(file: Path, rng: Generator) -> None:
    """Exchange, repeat or leave out records of the archive; its checksums are right."""
    with zipfile.ZipFile(file) as archive:
        records = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    first, second = (int(index) for index in rng.integers(0, len(records), 2))
    kind = rng.integers(0, 3)
    if kind == 0:
        records[first], records[second] = (
            (records[first][0], records[second][1]),
            (records[second][0], records[first][1]),
        )
    elif kind == 1:
        records.append((records[first][0], records[second][1]))
    else:
        records.pop(first)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if rng.random() < 0.3 else zipfile.ZIP_STORED) as archive:
        for name, data in records:
            archive.writestr(name, data)


def write_another_file(file: Path, rng: Generator) -> None:
    index = int(rng.integers(0, 8))
    contents = (
        b"",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n",
        b"<!DOCTYPE html><html><body>404</body></html>",
        rng.bytes(int(rng.integers(1, 9000))),
        b"PK\x03\x04" + rng.bytes(2000),
        pickle.dumps({"thaw": {"format": 1}, "state_dict": {}}),
        json.dumps({"thaw": {}}).encode(),
        b"\x80\x02" + rng.bytes(500),
    )
    file.write_bytes(contents[index])


DAMAGE_OF_BYTES = (flip_bits, flip_a_bit_of_the_directory, overwrite_a_block, truncate, insert_or_remove_bytes)
DAMAGE_OF_CONTENT = (swap_tensors, replace_a_tensor, change_the_metadata, rewrite_the_archive)
KINDS = (*DAMAGE_OF_BYTES, put_in_values_that_are_not_finite, write_another_file, *DAMAGE_OF_CONTENT)
PIXELS = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def predict(path: Path) -> tuple[tuple[str, ...], torch.Tensor] | None:
    """Return the classes and the probabilities of two images; None if the checkpoint is refused."""
    try:
        classifier = load_checkpoint(path)
    except UserError:
        return None
    return classifier.classes, classifier.predict_proba(PIXELS)


@pytest.mark.parametrize("index", range(INPUTS_PER_KIND))
@pytest.mark.parametrize("damage", KINDS, ids=lambda damage: damage.__name__)
def test_a_damaged_checkpoint_is_refused_or_predicts_the_same(
    damage: Callable[[Path, Generator], None],
    index: int,
    short_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected = predict(short_run)
    assert expected is not None
    run = Path(shutil.copytree(short_run, tmp_path / "run"))
    file = run / "checkpoints" / "best.ckpt"
    damage(file, np.random.default_rng([KINDS.index(damage), index]))
    result = predict(run)  # its digest is in run.json
    assert result is None or (result[0] == expected[0] and torch.equal(result[1], expected[1]))
    lone_file = Path(shutil.copy(file, tmp_path / "lone.ckpt"))
    lone_result = predict(lone_file)
    if lone_result is not None:
        assert torch.isfinite(lone_result[1]).all()
        if damage not in DAMAGE_OF_CONTENT:
            assert lone_result[0] == expected[0]
            assert torch.equal(lone_result[1], expected[1])
    Image.new("RGB", (40, 40), "red").save(tmp_path / "red.png")
    for arguments in (["predict", str(lone_file), str(tmp_path / "red.png")], ["evaluate", str(lone_file)]):
        status = run_thaw(monkeypatch, *arguments)
        assert status in (0, 2), capsys.readouterr().err
        assert status == 2 or lone_result is not None
    assert "Traceback" not in capsys.readouterr().err


def are_equal(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and torch.equal(first, second)
    if isinstance(first, Mapping):
        return first.keys() == second.keys() and all(are_equal(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(are_equal, first, second))
    return bool(first == second)


@pytest.mark.parametrize("index", range(INPUTS_PER_KIND))
@pytest.mark.parametrize("damage", DAMAGE_OF_BYTES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("read", [AtomicCheckpointIO().load_checkpoint, read_state], ids=["resume", "weights"])
def test_a_damaged_file_is_refused_or_read_as_the_same(
    read: Callable[[Path], Any], damage: Callable[[Path, Generator], None], index: int, short_run: Path, tmp_path: Path
) -> None:
    source = short_run / "checkpoints" / "last.ckpt"
    file = Path(shutil.copy(source, tmp_path / "last.ckpt"))
    damage(file, np.random.default_rng([99, KINDS.index(damage), index]))
    try:
        content = read(file)
    except UserError:
        return
    assert are_equal(content, read(source))
