"""A network from a checkpoint alone; and what is no checkpoint, refused with one message."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from thaw import load
from thaw.cli import main as cli
from thaw.config.errors import UserError
from thaw.inference.export import export_model
from thaw.inference.load import load_checkpoint
from thaw.models import pretrained as source


@pytest.fixture
def alone(short_run: Path, tmp_path: Path) -> Path:
    """The checkpoint, in a folder that holds nothing else."""
    return Path(shutil.copy(short_run / "checkpoints" / "best.ckpt", tmp_path / "best.ckpt"))


def test_three_lines_of_python_predict_in_a_folder_with_the_checkpoint_alone(alone: Path) -> None:
    Image.new("RGB", (40, 30), "red").save(alone.parent / "a.png")
    lines = "from thaw import load\nnetwork = load('best.ckpt')\nprint(network.predict(['a.png'])[0].label in 'ABCD')"
    done = subprocess.run([sys.executable, "-c", lines], cwd=alone.parent, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True", done.stderr


def test_predictions_are_sorted_and_broken_images_say_why_in_their_place(alone: Path) -> None:
    (alone.parent / "torn.png").write_bytes(b"\x89PNG torn")
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8))
    whole, torn, one_more = load(alone).predict([noise, alone.parent / "torn.png", noise], top=9)
    assert "identify" in torn.error
    assert (torn.label, torn.probability) == ("", 0.0)
    shares = [share for _, share in whole.top]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1)
    assert {name for name, _ in whole.top} == set("ABCD")
    assert whole.top == one_more.top


def test_neither_source_weights_nor_the_callers_chance_are_used(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "read_state", lambda file: pytest.fail(f"{file} is not needed"))
    before = torch.get_rng_state()
    assert load_checkpoint(alone).classes == tuple("ABCD")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_recipe_that_asks_for_things_of_another_machine_is_no_hindrance(alone: Path) -> None:
    def elsewhere(content: dict[str, Any]) -> None:
        recipe = content["thaw"]["recipe"]
        recipe["backbone"]["weights"] = "/nowhere/weights.pth"
        recipe["optimizer"]["name"] = "nowhere.MyOptimizer"
        recipe["trainer"] |= {"accelerator": "gpu", "precision": "16-mixed"}
        recipe["dataset"]["draw_seed"] = 7

    assert load(changed(alone, elsewhere)).classes == tuple("ABCD")


def changed(file: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    content = torch.load(file, weights_only=True)
    change(content)
    torch.save(content, file)
    return file


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.touch, (self.target,)


def test_a_pickled_object_is_refused_and_not_executed(alone: Path) -> None:
    trace = alone.parent / "executed"
    changed(alone, lambda content: content["thaw"].update(bomb=Bomb(trace)))
    with pytest.raises(UserError, match=r"pickled objects.*must be executed"):
        load_checkpoint(alone)
    assert not trace.exists()
    alone.write_bytes(pickle.dumps({"thaw": Bomb(trace)}))
    with pytest.raises(UserError, match="cannot be used"):
        load_checkpoint(alone)
    assert not trace.exists()


FIRST = "network.stages.stem.conv_stem.weight"


def _renamed(content: dict[str, Any]) -> None:
    state = content["state_dict"]
    state["network.stages.stem.conv_stam.weight"] = state.pop(FIRST)


TAMPERED: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "missing": (lambda content: content["state_dict"].pop(FIRST), r"1 tensor missing: stages\.stem"),
    "renamed": (_renamed, r"renamed\? stages\.stem\.conv_stam\.weight -> stages\.stem\.conv_stem\.weight"),
    "misshapen": (
        lambda content: content["state_dict"].update({FIRST: torch.zeros(32, 3, 5, 5)}),
        r"of another shape: .* \[32, 3, 5, 5\] instead of \[32, 3, 3, 3\]",
    ),
    "no tensor": (lambda content: content["state_dict"].update({FIRST: 3}), "other things than tensors"),
    "newer": (lambda content: content["thaw"].update(format=99), "format 99, of a newer version of thaw"),
    "no classes": (lambda content: content["thaw"].pop("classes"), r"thaw\.classes: Field required"),
    "two means": (lambda content: content["thaw"]["preprocessing"].update(mean=[0.5, 0.5]), r"preprocessing\.mean"),
    "no such backbone": (
        lambda content: content["thaw"]["recipe"]["backbone"].update(name="efficientnet_of_2031"),
        "efficientnet_of_2031, which the installed timm does not have",
    ),
    "strange recipe": (lambda content: content["thaw"]["recipe"].update(speed=3), "speed: no such key"),
    "of Lightning": (
        lambda content: (content.pop("thaw"), content.update({"pytorch-lightning_version": "2.6"})),
        "a checkpoint of PyTorch Lightning",
    ),
}


@pytest.mark.parametrize("kind", TAMPERED)
def test_a_checkpoint_that_was_changed_is_refused_by_what_is_wrong(kind: str, alone: Path) -> None:
    change, told = TAMPERED[kind]
    with pytest.raises(UserError, match=told):
        load_checkpoint(changed(alone, change))


def _zip(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("config.json", "{}")


def _script(file: Path) -> None:
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), str(file))


FOREIGN: dict[str, tuple[Callable[[Path], object], str]] = {
    "weights.pth": (lambda file: torch.save({"fc.weight": torch.zeros(9)}, file), "1 tensors by name, like the files of torchvision"),
    "nested.pth": (lambda file: torch.save({"model": {"fc.weight": torch.zeros(9)}}, file), "no `thaw` among them"),
    "list.pt": (lambda file: torch.save([1, 2], file), "a list"),
    "module.pt": (lambda file: torch.save(torch.nn.Linear(2, 2), file), r"pickled objects \(torch\.nn"),
    "script.pt": (_script, "TorchScript"),
    "tensors.safetensors": (lambda file: save_file({"a": torch.zeros(9)}, file), "a safetensors file"),
    "keras.h5": (lambda file: file.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100)), "as Keras writes it"),
    "net.onnx": (lambda file: file.write_bytes(b"\x08\x07\x12\x07pytorch" + bytes(100)), "an ONNX file"),
    "some.zip": (_zip, r"a zip archive of config\.json"),
    "notes.txt": (lambda file: file.write_text("epoch 1\n"), "text"),
    "empty.ckpt": (lambda file: file.write_bytes(b""), "the file is empty"),
    "noise.ckpt": (lambda file: file.write_bytes(bytes(range(256)) * 9), "cannot be used"),
    "pickle.pkl": (lambda file: file.write_bytes(pickle.dumps({1, 2})), "cannot be used"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_of_another_kind_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write, told = FOREIGN[name]
    write(tmp_path / name)
    with pytest.raises(UserError, match=told):
        load_checkpoint(tmp_path / name)
    monkeypatch.setattr(sys, "argv", ["thaw", "evaluate", str(tmp_path / name)])
    assert cli.main() == 2
    assert capsys.readouterr().err.count("the checkpoint cannot be used") == 1


@pytest.mark.parametrize("share", [0.1, 0.5, 0.999])
def test_a_truncated_checkpoint_is_told(share: float, alone: Path) -> None:
    content = alone.read_bytes()
    alone.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match="truncated"):
        load_checkpoint(alone)


def _as_tensors(alone: Path, **metadata: str) -> Path:
    """An export to safetensors beside `alone`, with other `metadata`."""
    file = alone.with_suffix(".safetensors")
    export_model(load_checkpoint(alone), "safetensors", file, torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    if metadata:
        with safe_open(file, "pt") as opened:
            save_file({name: opened.get_tensor(name) for name in opened.keys()}, file, opened.metadata() | metadata)  # noqa: SIM118
    return file


def test_an_export_that_was_cut_off_or_changed_is_refused(alone: Path) -> None:
    file = _as_tensors(alone)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match="truncated or damaged"):
        load_checkpoint(file)
    for metadata, told in (
        ({"classes": "ABCD"}, "metadata are not JSON"),
        ({"classes": '["A"]'}, r"thaw\.classes"),
        ({"thaw_format": "9"}, "format 9"),
    ):
        with pytest.raises(UserError, match=told):
            load_checkpoint(_as_tensors(alone, **metadata))


def test_a_folder_leads_to_its_checkpoint_or_says_what_it_holds(short_run: Path, alone: Path) -> None:
    assert load_checkpoint(short_run).classes == load_checkpoint(alone.parent).classes
    with pytest.raises(UserError, match="a folder of 1 runs"):
        load_checkpoint(short_run.parent)
    with pytest.raises(UserError, match=r"no such file(.|\n)*fix: .*best\.ckpt"):
        load_checkpoint(alone.with_name("bst.ckpt"))
