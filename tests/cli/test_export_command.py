"""`thaw export`, as a user types it."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import TINY, get_only_run, run_thaw
from thaw.cli import export as command
from thaw.cli.train import launch
from thaw.inference.export import ExportCheck, ExportMismatchError
from thaw.inference.export_formats import FORMATS


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("outputs")
    network = ("backbone=timm", "backbone.name=test_resnet", "strategy=scratch")
    assert launch([*TINY, *network, "trainer.epochs=1", f"output_dir={outputs}"]) == 0
    return get_only_run(outputs)


def test_the_command_knows_every_format() -> None:
    assert set(FORMATS) == set(command.SUFFIXES)


@pytest.mark.parametrize("format_name", ["torchscript", "safetensors"])
def test_a_checkpoint_alone_in_a_folder_is_exported_and_checked(
    format_name: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(run / "checkpoints" / "best.ckpt", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert run_thaw(monkeypatch, "export", "best.ckpt", "--format", format_name) == 0
    output = capsys.readouterr().out
    assert "checked on 20 generated test images of captcha, in batches of 1 and 7" in output
    assert re.search(r"the same class for 20 of 20; largest difference \d\.\de[-+]\d+ of probabilities", output)
    assert {argument.name for argument in tmp_path.iterdir()} == {"best.ckpt", f"best{command.SUFFIXES[format_name]}"}


def test_a_run_is_exported_and_its_safetensors_exported_again(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first.safetensors", tmp_path / "second.torchscript"
    assert run_thaw(monkeypatch, "export", str(run), "--format=safetensors", f"--out={first}") == 0
    assert run_thaw(monkeypatch, "export", str(first), "--format=torchscript", f"--out={second}") == 0
    assert "deprecated" in capsys.readouterr().out
    assert run_thaw(monkeypatch, "export", str(first), "--format=safetensors") == 2, "it would replace itself"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("RUN",), "no format"),
        (("RUN", "--format", "onxx"), "--format onnx"),
        (("RUN", "--fromat", "onnx"), "--format VALUE"),
        (("--format", "onnx"), "no RUN|CKPT"),
        (("RUN", "--format", "onnx", "nowhere.jpg"), "nowhere.jpg"),
        (("RUN", "--format", "onnx", "--out", "m.pt"), "--out m.onnx"),
        (("RUN", "--format", "onnx", "--out", "nowhere/m.onnx"), "mkdir -p nowhere"),
        (("nowhere", "--format", "onnx"), "no such file"),
    ],
)
def test_wrong_commands_end_with_2_and_show_the_fix(
    arguments: tuple[str, ...],
    message: str,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert (
        run_thaw(monkeypatch, "export", *(str(run) if argument == "RUN" else argument for argument in arguments)) == 2
    )
    assert message in capsys.readouterr().err


def test_onnx_without_its_packages_shows_how_to_install_them(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original_find_spec = importlib.util.find_spec
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "onnxscript" else original_find_spec(name))
    assert run_thaw(monkeypatch, "export", str(run), "--format", "onnx") == 2
    output = capsys.readouterr().err
    assert "not installed: onnxscript" in output
    assert 'pip install "thaw[export]"' in output


def test_an_export_that_differs_from_the_network_ends_with_1(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def raise_mismatch(*_: object) -> None:
        raise ExportMismatchError(ExportCheck(100, 61, 2.5, 0.4, 3.0))

    monkeypatch.setattr("thaw.inference.export.export_model", raise_mismatch)
    assert run_thaw(monkeypatch, "export", str(run), "--format=safetensors", f"--out={tmp_path / 'm.safetensors'}") == 1
    output = capsys.readouterr().err
    assert "was deleted" in output
    assert "the same class for 61 of 100; largest difference 4.0e-01 of probabilities, 2.5e+00 of logits" in output


def test_a_wrong_format_is_reported_before_torch_is_imported() -> None:
    program = "import sys; from thaw.cli.main import main; main(['export', 'RUN', '--format', 'onxx'])\n"
    program += "print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "False\n"
