"""Load and use a network from a checkpoint; reject files that are not checkpoints."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from safetensors import safe_open
from safetensors.torch import save_file

from thaw import load
from thaw.cli.main import main
from thaw.config.errors import UserError
from thaw.data.image import decode_image
from thaw.inference.export import export_model
from thaw.inference.load import load_checkpoint
from thaw.inference.predict import Predictions, load_pixels, preprocess
from thaw.models import pretrained


@pytest.fixture
def checkpoint(short_run: Path, tmp_path: Path) -> Path:
    """A checkpoint in an otherwise empty folder."""
    return Path(shutil.copy(short_run / "checkpoints" / "best.ckpt", tmp_path / "best.ckpt"))


def test_three_lines_of_python_predict_from_a_checkpoint_only(checkpoint: Path) -> None:
    Image.new("RGB", (40, 30), "red").save(checkpoint.parent / "a.png")
    lines = "from thaw import load\nnetwork = load('best.ckpt')\nprint(network.predict(['a.png'])[0].label in 'ABCD')"
    result = subprocess.run(
        [sys.executable, "-c", lines], cwd=checkpoint.parent, capture_output=True, text=True, check=False
    )
    assert result.stdout.strip() == "True", result.stderr


def test_predictions_are_sorted_and_broken_images_have_an_error_in_their_place(checkpoint: Path) -> None:
    (checkpoint.parent / "truncated.png").write_bytes(b"\x89PNG truncated")
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8))
    first, broken, second = load(checkpoint).predict([noise, checkpoint.parent / "truncated.png", noise], top=9)
    assert "identify" in broken.error
    assert (broken.label, broken.probability) == ("", 0.0)
    probabilities = [probability for _, probability in first.top]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1)
    assert {name for name, _ in first.top} == set("ABCD")
    assert first.top == second.top


def test_predictions_are_those_of_the_decoding_of_the_run(checkpoint: Path) -> None:
    """A photograph that is decoded at a fraction of its size gives the stored pixels of training, or those of old."""
    path, classifier = checkpoint.parent / "photo.jpg", load_checkpoint(checkpoint)
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    assert classifier.preprocessing.decoding == "scaled"
    pixels = {}
    for decoding in ("scaled", "full"):
        preprocessing = replace(classifier.preprocessing, decoding=decoding)
        decoded = decode_image(path, preprocessing.min_decoded_side)
        assert (decoded.denominator > 1) == (decoding == "scaled")
        pixels[decoding] = preprocess(decoded, preprocessing)
        assert np.array_equal(load_pixels([path], preprocessing)[0], pixels[decoding].permute(1, 2, 0))
        (prediction,) = replace(classifier, preprocessing=preprocessing).predict(path, top=1)
        probabilities = classifier.predict_proba(pixels[decoding][None])
        assert prediction.probability == pytest.approx(float(probabilities.max()))
    assert not torch.equal(pixels["scaled"], pixels["full"])


def test_loading_reads_no_pretrained_weights_and_keeps_the_callers_random_state(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "read_state", lambda file: pytest.fail(f"{file} is not needed"))
    before = torch.get_rng_state()
    assert load_checkpoint(checkpoint).classes == tuple("ABCD")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_recipe_with_settings_of_another_machine_loads(checkpoint: Path) -> None:
    def move_to_another_machine(content: dict[str, Any]) -> None:
        recipe = content["thaw"]["recipe"]
        recipe["backbone"]["weights"] = "/nowhere/weights.pth"
        recipe["optimizer"]["name"] = "nowhere.MyOptimizer"
        recipe["trainer"] |= {"accelerator": "gpu", "precision": "16-mixed"}
        recipe["dataset"]["draw_seed"] = 7

    assert load(change_file(checkpoint, move_to_another_machine)).classes == tuple("ABCD")


def change_file(file: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    content = torch.load(file, weights_only=True)
    change(content)
    torch.save(content, file)
    return file


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.touch, (self.target,)


def test_a_pickled_object_is_rejected_and_not_executed(checkpoint: Path) -> None:
    trace = checkpoint.parent / "executed"
    change_file(checkpoint, lambda content: content["thaw"].update(payload=Payload(trace)))
    with pytest.raises(UserError, match=r"pickled objects.*must be executed"):
        load_checkpoint(checkpoint)
    assert not trace.exists()
    checkpoint.write_bytes(pickle.dumps({"thaw": Payload(trace)}))
    with pytest.raises(UserError, match="cannot be used"):
        load_checkpoint(checkpoint)
    assert not trace.exists()


FIRST_WEIGHT = "network.stages.stem.conv_stem.weight"


def _rename_weight(content: dict[str, Any]) -> None:
    state = content["state_dict"]
    state["network.stages.stem.conv_stam.weight"] = state.pop(FIRST_WEIGHT)


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "missing": (lambda content: content["state_dict"].pop(FIRST_WEIGHT), r"1 tensor missing: stages\.stem"),
    "renamed": (_rename_weight, r"renamed\? stages\.stem\.conv_stam\.weight -> stages\.stem\.conv_stem\.weight"),
    "misshapen": (
        lambda content: content["state_dict"].update({FIRST_WEIGHT: torch.zeros(32, 3, 5, 5)}),
        r"of another shape: .* \[32, 3, 5, 5\] instead of \[32, 3, 3, 3\]",
    ),
    "no tensor": (lambda content: content["state_dict"].update({FIRST_WEIGHT: 3}), "other things than tensors"),
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


@pytest.mark.parametrize("kind", CHANGES)
def test_a_changed_checkpoint_is_rejected_with_the_problem(kind: str, checkpoint: Path) -> None:
    change, message = CHANGES[kind]
    with pytest.raises(UserError, match=message):
        load_checkpoint(change_file(checkpoint, change))


def _write_zip(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("config.json", "{}")


def _write_script(file: Path) -> None:
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), str(file))


FOREIGN: dict[str, tuple[Callable[[Path], object], str]] = {
    "weights.pth": (
        lambda file: torch.save({"fc.weight": torch.zeros(9)}, file),
        "1 tensors by name, like the files of torchvision",
    ),
    "nested.pth": (lambda file: torch.save({"model": {"fc.weight": torch.zeros(9)}}, file), "no `thaw` among them"),
    "list.pt": (lambda file: torch.save([1, 2], file), "a list"),
    "module.pt": (lambda file: torch.save(torch.nn.Linear(2, 2), file), r"pickled objects \(torch\.nn"),
    "script.pt": (_write_script, "TorchScript"),
    "tensors.safetensors": (lambda file: save_file({"a": torch.zeros(9)}, file), "a safetensors file"),
    "keras.h5": (lambda file: file.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100)), "as Keras writes it"),
    "net.onnx": (lambda file: file.write_bytes(b"\x08\x07\x12\x07pytorch" + bytes(100)), "an ONNX file"),
    "some.zip": (_write_zip, r"a zip archive of config\.json"),
    "notes.txt": (lambda file: file.write_text("epoch 1\n"), "text"),
    "empty.ckpt": (lambda file: file.write_bytes(b""), "the file is empty"),
    "noise.ckpt": (lambda file: file.write_bytes(bytes(range(256)) * 9), "cannot be used"),
    "pickle.pkl": (lambda file: file.write_bytes(pickle.dumps({1, 2})), "cannot be used"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_of_another_format_is_rejected_with_its_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write, message = FOREIGN[name]
    write(tmp_path / name)
    with pytest.raises(UserError, match=message):
        load_checkpoint(tmp_path / name)
    assert main(["evaluate", str(tmp_path / name)]) == 2
    assert capsys.readouterr().err.count("the checkpoint cannot be used") == 1


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.999])
def test_a_truncated_checkpoint_is_an_error(fraction: float, checkpoint: Path) -> None:
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(UserError, match="truncated"):
        load_checkpoint(checkpoint)


def _export_safetensors(checkpoint: Path, **metadata: str) -> Path:
    """Export a checkpoint to safetensors in its folder, with other `metadata`."""
    file = checkpoint.with_suffix(".safetensors")
    export_model(load_checkpoint(checkpoint), "safetensors", file, torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    if metadata:
        with safe_open(file, "pt") as tensors:
            save_file({name: tensors.get_tensor(name) for name in tensors.keys()}, file, tensors.metadata() | metadata)  # noqa: SIM118
    return file


def test_a_truncated_or_changed_export_is_rejected(checkpoint: Path) -> None:
    file = _export_safetensors(checkpoint)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match="truncated or damaged"):
        load_checkpoint(file)
    for metadata, message in (
        ({"classes": "ABCD"}, "metadata are not JSON"),
        ({"classes": '["A"]'}, r"thaw\.classes"),
        ({"thaw_format": "9"}, "format 9"),
    ):
        with pytest.raises(UserError, match=message):
            load_checkpoint(_export_safetensors(checkpoint, **metadata))


@pytest.mark.parametrize("fraction", [0.05, 0.3, 0.7, 0.99])
def test_a_flipped_bit_of_an_export_is_found(fraction: float, checkpoint: Path) -> None:
    file = _export_safetensors(checkpoint)
    assert load_checkpoint(file).identity == load_checkpoint(checkpoint).identity is not None
    content = bytearray(file.read_bytes())
    content[int(fraction * len(content))] ^= 0x10
    file.write_bytes(content)
    with pytest.raises(UserError, match="the file has changed: its SHA-256 differs"):
        load_checkpoint(file)


def test_a_folder_loads_its_checkpoint_or_is_an_error_with_its_content(short_run: Path, checkpoint: Path) -> None:
    assert load_checkpoint(short_run).classes == load_checkpoint(checkpoint.parent).classes
    with pytest.raises(UserError, match="a folder of 1 runs"):
        load_checkpoint(short_run.parent)
    with pytest.raises(UserError, match=r"no such file(.|\n)*fix: .*best\.ckpt"):
        load_checkpoint(checkpoint.with_name("bst.ckpt"))


def test_a_path_an_image_and_an_array_give_the_same_prediction(checkpoint: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8)
    image, file = Image.fromarray(pixels), checkpoint.parent / "a.png"
    image.save(file)
    classifier = load(checkpoint)
    (expected,) = classifier.predict(str(file))
    assert expected.path == str(file)
    for inputs in (file, image, pixels, [file], [pixels], pixels[None]):
        (prediction,) = classifier.predict(inputs)
        assert prediction.top == expected.top
    assert len(classifier.predict(np.stack([pixels, pixels]))) == 2


def _build_pictures() -> dict[str, tuple[Image.Image, str, dict[str, Any]]]:
    """Return pictures of many kinds with the suffix and the options of a file that keeps all of them."""
    rng, exif = np.random.default_rng(0), Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image = Image.fromarray(rng.integers(0, 255, (40, 30, 3), dtype=np.uint8))
    transparent = image.convert("RGBA")
    transparent.putalpha(Image.fromarray(rng.integers(0, 255, (40, 30), dtype=np.uint8)))
    gray_and_alpha, palette = transparent.convert("LA"), image.quantize(16)
    return {
        "transparency": (transparent, ".png", {}),
        "gray and transparency": (gray_and_alpha, ".png", {}),
        "palette": (palette, ".png", {"transparency": 3}),
        "rotated": (image, ".jpg", {"exif": exif}),
        "CMYK": (image.convert("CMYK"), ".jpg", {}),
        "16 bits": (Image.fromarray(rng.integers(0, 65535, (40, 30)).astype(np.uint16)), ".png", {}),
        "1 bit": (image.convert("1"), ".png", {}),
        "floating point": (Image.fromarray(rng.random((40, 30), dtype=np.float32)), ".tif", {}),
    }


@pytest.mark.parametrize("kind", _build_pictures())
def test_a_file_and_its_opened_image_give_the_same_prediction(kind: str, checkpoint: Path) -> None:
    picture, suffix, options = _build_pictures()[kind]
    file = checkpoint.parent / f"picture{suffix}"
    picture.save(file, **options)
    classifier, opened_image = load_checkpoint(checkpoint), Image.open(file)
    from_file, first, second = classifier.predict([file, opened_image, opened_image])
    assert from_file.error == ""
    assert first.top == second.top == from_file.top


def test_a_folder_is_all_images_below_it(checkpoint: Path) -> None:
    folder = checkpoint.parent / "photos"
    (folder / "below").mkdir(parents=True)
    for name in ("b.gif", "a.png", "below/c.jfif", "notes.txt"):
        Image.new("RGB", (40, 30), "red").save(folder / name, "JPEG" if name.endswith("jfif") else "PNG")
    classifier = load_checkpoint(checkpoint)
    names = [Path(prediction.path).name for prediction in classifier.predict(folder)]
    assert names == ["a.png", "b.gif", "c.jfif"]
    assert len(classifier.predict([folder, folder / "a.png"])) == 4
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match="a folder without images"):
        classifier.predict(folder / "empty")


def test_an_opened_image_that_cannot_be_decoded_has_an_error_in_its_place(checkpoint: Path) -> None:
    file = checkpoint.parent / "truncated.png"
    Image.effect_noise((40, 40), 50).save(file)
    file.write_bytes(file.read_bytes()[:-300])
    from_file, from_image = load_checkpoint(checkpoint).predict([file, Image.open(file)])
    assert from_image.error == from_file.error != ""


@pytest.mark.parametrize(
    ("pixels", "fix"),
    [
        (np.full((8, 8, 3), 0.5), "(array * 255).round().astype('uint8')"),
        (np.full((8, 8), 128.0), "(array).round().astype('uint8')"),
        (np.zeros((3, 8, 9), np.uint8), "array.transpose(1, 2, 0)"),
        (np.zeros((3, 8, 9), np.float32), "(array.transpose(1, 2, 0) * 255).round().astype('uint8')"),
        (np.zeros((8, 9), np.uint16), "(array // 257).astype('uint8')"),
        (np.zeros((8, 8, 5), np.uint8), ""),
        (np.zeros(8, np.uint8), ""),
        (np.zeros((0, 8, 3), np.uint8), ""),
        (np.zeros((8, 8, 3), np.int64), ""),
    ],
)
def test_an_array_that_is_not_an_image_is_an_error_with_the_expression_that_is(
    pixels: np.ndarray, fix: str, checkpoint: Path
) -> None:
    classifier = load_checkpoint(checkpoint)
    with pytest.raises(UserError, match="the array is not an image") as raised:
        classifier.predict(pixels)
    (problem,) = raised.value.problems
    assert (problem.got, problem.fix) == (f"{pixels.dtype} {list(pixels.shape)}", fix)
    if fix:
        assert classifier.predict(eval(fix, {"array": pixels}))[0].label in "ABCD"


@pytest.mark.parametrize("value", [None, 3, torch.zeros(3, 8, 8), [None], b"ant.jpg"])
def test_what_is_no_image_is_an_error_with_what_is(value: Any, checkpoint: Path) -> None:
    with pytest.raises(UserError, match="a path, a PIL image, or an array uint8"):
        load_checkpoint(checkpoint).predict(value)


def test_a_run_is_loaded_like_its_directory(short_run: Path) -> None:
    class RunStub:
        directory = short_run

    assert load(RunStub()).recipe == load(str(short_run)).recipe


def test_a_classifier_shows_its_backbone_data_classes_and_size(checkpoint: Path) -> None:
    classifier = load_checkpoint(checkpoint)
    num_parameters = f"{sum(weight.numel() for weight in classifier.network.parameters()):,}"
    data = "4 classes of captcha: A, B, C, D"
    assert repr(classifier) == f"Classifier(tf_efficientnet_lite0, {data}; 32 x 32 pixels, on cpu)"
    assert f"<td>{num_parameters}</td>" in classifier._repr_html_()


def test_predictions_are_shown_as_a_table(checkpoint: Path) -> None:
    Image.new("RGB", (40, 30), "red").save(checkpoint.parent / "<a>.png")
    predictions = load(checkpoint).predict([checkpoint.parent / "<a>.png", checkpoint.parent / "missing.png"], top=2)
    heading, first, second = repr(predictions).splitlines()
    assert heading.split() == ["image", "label", "probability"]
    assert first.endswith(f"{predictions[0].probability:.3f}")
    assert "missing.png" in second
    assert predictions[1].error in second
    assert "&lt;a&gt;.png</td>" in predictions._repr_html_()
    assert repr(predictions[0]).startswith(f"Prediction('{checkpoint.parent}/<a>.png': {predictions[0].label} ")
    assert "... and 5 more" in repr(Predictions([predictions[0]] * 25))


def test_predictions_become_a_data_frame(checkpoint: Path) -> None:
    pandas = pytest.importorskip("pandas")
    image = Image.new("RGB", (40, 30), "red")
    predictions = load(checkpoint).predict([image, checkpoint.parent / "missing.png"], top=2)
    frame = predictions.to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame) == ["path", "label", "probability", "label_2", "probability_2", "error"]
    assert frame["label"][0] == predictions[0].label
    assert frame["error"][1] == predictions[1].error
