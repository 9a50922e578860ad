"""Damage of a checkpoint is found when it is read: checksums, values, and the digest that its run has recorded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import run_thaw
from thaw.config.errors import UserError
from thaw.inference.load import load_checkpoint
from thaw.models.state_dict import read_state
from thaw.runs.run import open_run

WEIGHT = "network.stages.stem.conv_stem.weight"
MEAN = "network.stages.stem.bn1.running_mean"


@pytest.fixture
def run_directory(short_run: Path, tmp_path: Path) -> Path:
    """A copy of a run that a test may damage."""
    return Path(shutil.copytree(short_run, tmp_path / "run"))


def flip_bit(file: Path, position: int) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 0x10
    file.write_bytes(content)


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("read", [load_checkpoint, read_state])
def test_a_flipped_bit_is_found_wherever_it_is(
    fraction: float, read: Callable[[Path], Any], short_run: Path, tmp_path: Path
) -> None:
    file = Path(shutil.copy(short_run / "checkpoints" / "best.ckpt", tmp_path))
    flip_bit(file, int(fraction * file.stat().st_size))
    with pytest.raises(UserError, match=r"the checksum of .* differs"):
        read(file)


def test_the_fix_for_a_damaged_best_checkpoint_is_the_last_while_that_is_sound(run_directory: Path) -> None:
    best, last = run_directory / "checkpoints" / "best.ckpt", run_directory / "checkpoints" / "last.ckpt"
    flip_bit(best, best.stat().st_size // 2)
    with pytest.raises(UserError, match=r"fix: .*last\.ckpt, the weights of the last epoch"):
        load_checkpoint(run_directory)
    assert load_checkpoint(last).classes == tuple("ABCD")
    flip_bit(last, last.stat().st_size // 2)
    with pytest.raises(UserError, match=r"fix: .*train the run again") as raised:
        load_checkpoint(run_directory)
    assert "last.ckpt" not in str(raised.value)


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "NaN": (lambda content: content["state_dict"][WEIGHT].fill_(float("nan")), "1 tensor with NaN or infinite values"),
    "infinite": (lambda content: content["state_dict"][MEAN].fill_(float("-inf")), "1 tensor with NaN or infinite"),
    "NaN mean": (lambda content: content["thaw"]["preprocessing"]["mean"].__setitem__(1, float("nan")), r"mean\.1"),
    "no deviation": (lambda content: content["thaw"]["preprocessing"].update(std=[0.0] * 3), r"preprocessing\.std"),
    "negative size": (lambda content: content["thaw"]["preprocessing"].update(size=-32), r"preprocessing\.size"),
    "repeated class": (lambda content: content["thaw"].update(classes=["A", "B", "B", "D"]), "repeated"),
    "meta": (
        lambda content: content["state_dict"].update({WEIGHT: torch.empty(32, 3, 3, 3, device="meta")}),
        "a meta tensor, without values",
    ),
    "sparse": (
        lambda content: content["state_dict"].update({WEIGHT: content["state_dict"][WEIGHT].to_sparse()}),
        "a sparse tensor",
    ),
    "quantized": (
        lambda content: content["state_dict"].update(
            {WEIGHT: torch.quantize_per_tensor(content["state_dict"][WEIGHT], 0.1, 0, torch.qint8)}
        ),
        "quantized torch.qint8",
    ),
    "complex": (
        lambda content: content["state_dict"].update({WEIGHT: content["state_dict"][WEIGHT].to(torch.complex64)}),
        r"torch\.complex64",
    ),
    "integer": (
        lambda content: content["state_dict"].update({WEIGHT: content["state_dict"][WEIGHT].to(torch.int32)}),
        r"of another type: .* torch\.int32 instead of torch\.float32",
    ),
    "shuffled": (
        lambda content: content["state_dict"].update({MEAN: content["state_dict"][MEAN].flip(0)}),
        "changed since the run ended",
    ),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("kind", CHANGES)
def test_wrong_values_are_refused_with_what_is_wrong(
    kind: str, run_directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    change, message = CHANGES[kind]
    file = run_directory / "checkpoints" / "best.ckpt"
    content = torch.load(file, weights_only=True)
    change(content)
    torch.save(content, file)
    with pytest.raises(UserError, match=message):
        load_checkpoint(run_directory)
    assert run_thaw(monkeypatch, "evaluate", str(run_directory)) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_the_digest_of_an_earlier_file_refuses_nothing_while_the_run_trains(run_directory: Path) -> None:
    record_file = run_directory / "run.json"
    record = json.loads(record_file.read_text())
    record["checkpoints"]["best.ckpt"] = "0" * 64
    record_file.write_text(json.dumps(record))
    with pytest.raises(UserError, match="changed since the run ended"):
        load_checkpoint(run_directory)
    record_file.write_text(json.dumps(record | {"status": "running"}))
    assert load_checkpoint(run_directory).classes == tuple("ABCD")
    record_file.write_text("damaged")
    assert load_checkpoint(run_directory).classes == tuple("ABCD")


def test_a_run_is_not_resumed_from_a_damaged_checkpoint_and_starts_anew_without_it(
    run_directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record_file, last = run_directory / "run.json", run_directory / "checkpoints" / "last.ckpt"
    record_file.write_text(json.dumps(json.loads(record_file.read_text()) | {"status": "interrupted"}))
    metrics = open_run(run_directory).metrics["test"]
    flip_bit(last, last.stat().st_size // 2)
    assert run_thaw(monkeypatch, "resume", str(run_directory)) == 2
    message = capsys.readouterr().err
    assert "the checksum of" in message
    assert f"rm {last}" in message
    last.unlink()
    assert run_thaw(monkeypatch, "resume", str(run_directory)) == 0
    run = open_run(run_directory)
    assert (run.status, run.metrics["test"], len(run.read_history())) == ("done", metrics, 1)
