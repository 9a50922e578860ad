"""`thaw predict`, and the captchas that it reads."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import run_thaw
from thaw.cli.arguments import run_command
from thaw.cli.image_paths import resolve_image_paths
from thaw.data.factory import load_samples
from thaw.inference.captcha import CaptchaReading, crop_characters, score_readings
from thaw.inference.load import load


@pytest.fixture
def photos(short_run: Path, tmp_path: Path) -> Path:
    """The run's test images, some in a folder below, and a file that is no image."""
    recipe = load(short_run).recipe
    root = load_samples(recipe).root
    folder = Path(shutil.copytree(root / "test", tmp_path / "photos"))
    (folder / "notes.md").write_text("of the photos")
    return folder


def read_predictions(short_run: Path) -> dict[str, tuple[str, float]]:
    with (short_run / "predictions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return {row["path"].removeprefix("test/"): (row["prediction"], float(row["probability"])) for row in rows}


def test_a_checkpoint_alone_gives_the_predictions_of_its_run(
    short_run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(short_run / "checkpoints" / "best.ckpt", "best.ckpt")
    assert run_thaw(monkeypatch, "predict", "best.ckpt", "photos", "--json", "--top", "2", "--grid", "seen.png") == 0
    rows = json.loads(capsys.readouterr().out)
    expected = read_predictions(short_run)
    assert [Path(row["path"]).relative_to("photos").as_posix() for row in rows] == sorted(expected)
    for row in rows:
        label, probability = expected[Path(row["path"]).relative_to("photos").as_posix()]
        assert (row["label"], row["probability"]) == (label, pytest.approx(probability, abs=1e-5))
        assert row["top"][0] == [row["label"], row["probability"]]
        assert len(row["top"]) == 2
    assert Image.open("seen.png").size[0] > 8 * 176


def test_patterns_files_and_a_list_on_standard_input_lead_to_the_same_images(
    short_run: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sorted(str(path) for path in (photos / "A").iterdir())
    outputs = []
    for arguments in ([str(photos / "A")], files, [str(photos / "**" / "A" / "*.png")], ["-"]):
        monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join([*files, ""])))
        assert run_thaw(monkeypatch, "predict", str(short_run), *arguments, "--csv") == 0
        outputs.append(capsys.readouterr().out)
    header, *rows = outputs[0].splitlines()
    assert header == "path,label,probability,label_2,probability_2,label_3,probability_3"
    assert [row.split(",")[0] for row in rows] == files
    assert outputs == [outputs[0]] * 4


class StandardInput:
    """Standard input with `content`."""

    def __init__(self, content: bytes) -> None:
        self.buffer = io.BytesIO(content)


@pytest.mark.parametrize(
    "encode",
    [
        lambda lines: "\r\n".join(lines).encode(),
        lambda lines: b"\xef\xbb\xbf" + "\n\n".join([*lines, " "]).encode(),
        lambda lines: "\r\n".join([*lines, ""]).encode("utf-16"),
        lambda lines: b"".join(line.encode() + b"\0" for line in lines),
    ],
    ids=["CR LF", "byte order mark", "UTF-16", "zero bytes"],
)
def test_a_list_of_files_is_read_as_other_systems_write_it(
    encode: Callable[[Sequence[str]], bytes], photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [str(photos / "A" / "0000.png"), str(photos / "B" / "0001.png")]
    monkeypatch.setattr(sys, "stdin", StandardInput(encode(files)))
    assert resolve_image_paths(["-"]) == ([Path(file) for file in files], [])


def test_files_of_a_folder_that_are_no_images_are_named(
    short_run: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "A" / ".hidden").write_text("")
    assert run_thaw(monkeypatch, "predict", str(short_run), str(photos)) == 0
    message = capsys.readouterr().err
    assert "left out, as they are no images: 1 (" in message
    assert "notes.md" in message


def test_a_reader_that_leaves_early_ends_the_command_quietly(
    short_run: Path, photos: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)  # as `| head` does when it has enough
    with os.fdopen(write_end, "w") as closed_output:
        monkeypatch.setattr(sys, "stdout", closed_output)
        assert run_thaw(monkeypatch, "predict", str(short_run), str(photos / "A"), "--json") == 141
        assert run_thaw(monkeypatch, "--version") == 0  # what is written later is discarded
    assert capfd.readouterr().err == ""


def test_a_reader_that_leaves_before_a_long_row_ends_the_command_quietly(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def print_long_row() -> int:
        print("y" * 9000, flush=True)  # more than the buffer, which is empty afterwards
        return 0

    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "w") as closed_output:
        monkeypatch.setattr(sys, "stdout", closed_output)
        assert run_command(print_long_row) == 141
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("style", [[], ["--csv"], ["--json"]])
def test_a_broken_image_is_named_and_the_others_are_predicted(
    style: list[str], short_run: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "A" / "0002.png").write_bytes(b"")
    assert run_thaw(monkeypatch, "predict", str(short_run), str(photos / "A"), *style) == 1
    captured = capsys.readouterr()
    assert "0002.png: the file is empty" in captured.err
    assert "1 of 5 images cannot be decoded" in captured.err
    printed_rows = json.loads(captured.out) if style == ["--json"] else captured.out.splitlines()[len(style) :]
    assert len(printed_rows) == (5 if style == ["--json"] else 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["photo"], "fix:   photos"),
        (["photos/A/0000.pmg"], "fix:   photos/A/0000.png"),
        (["photos/*.jpg"], "no image matches"),
        (["run"], "a run directory, whose images are plots"),
        (["run/checkpoints"], "a checkpoint, and no images"),
        (["empty"], "no images in it"),
        (["-"], "nothing on standard input"),
        ([], "no PATH..."),
        (["photos", "--topp", "3"], "fix:   --top"),
        (["photos", "--top", "0"], "at least 1"),
        (["photos", "--json", "--csv"], "two formats"),
        (["photos", "--grid", "seen.jpg"], "--grid seen.png"),
        (["photos", "--characters", "4"], "it is for captchas"),
    ],
)
def test_wrong_commands_end_with_2_and_show_the_fix(
    arguments: list[str],
    message: str,
    short_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    Path("empty").mkdir()
    Path("photos/A").mkdir(parents=True)
    Image.new("RGB", (9, 9)).save("photos/A/0000.png")
    Path("run").symlink_to(short_run)
    assert run_thaw(monkeypatch, "predict", str(short_run), *arguments) == 2
    assert message in capsys.readouterr().err


def test_drawn_captchas_are_read_and_scored(
    short_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "captchas"
    overrides = ["dataset.characters=ABCD", "dataset.side=32"]
    assert run_thaw(monkeypatch, "data", "captchas", f"out={folder}", "count=9", "length=3", *overrides) == 0
    with (folder / "labels.csv").open(newline="") as stream:
        labels = {row["file"]: row["text"] for row in csv.DictReader(stream)}
    assert len(labels) == 9
    assert Image.open(folder / "0000.png").size == (96, 32)
    capsys.readouterr()
    assert run_thaw(monkeypatch, "predict", str(short_run), str(folder), "--captcha", "--json") == 0
    captured = capsys.readouterr()
    rows = json.loads(captured.out)
    hits = sum(row["text"] == labels[Path(row["path"]).name] for row in rows)
    assert f"entirely right: {hits / 9:.3f} of 9" in captured.err
    assert all(len(row["text"]) == 3 for row in rows)
    assert (
        run_thaw(monkeypatch, "predict", str(short_run), str(folder / "0000.png"), "--captcha", "--characters", "2")
        == 0
    )
    assert len(capsys.readouterr().out.splitlines()[0].split()[1]) == 2
    assert run_thaw(monkeypatch, "data", "captchas", f"out={folder}", "count=9") == 2
    assert "a folder that is not empty" in capsys.readouterr().err


def test_a_captcha_is_cropped_into_the_squares_that_it_consists_of() -> None:
    squares = [Image.new("RGB", (32, 32), colour) for colour in ("red", "green", "blue")]
    captcha = Image.new("RGB", (96, 32))
    for index, square in enumerate(squares):
        captcha.paste(square, (32 * index, 0))
    assert [square.tobytes() for square in crop_characters(captcha)] == [square.tobytes() for square in squares]
    assert [square.size for square in crop_characters(captcha, 2)] == [(48, 32), (48, 32)]


def test_the_score_counts_broken_and_short_readings_as_wrong() -> None:
    paths = [Path(name) for name in "abcd"]
    labels = dict.fromkeys(paths[:3], "WXYZ")
    texts = ["WXYZ", "WXY", "", "unlabelled"]
    score = score_readings(
        [CaptchaReading(path, text, (1.0,) * len(text)) for path, text in zip(paths, texts, strict=True)], labels
    )
    assert score is not None
    assert (score.count, score.string_accuracy, score.character_accuracy) == (3, 1 / 3, 7 / 12)
    assert score.expected_string_accuracy == pytest.approx((7 / 12) ** 4)
    assert score_readings([], labels) is None


def test_a_network_of_other_classes_reads_no_captchas(
    short_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    content = torch.load(short_run / "checkpoints" / "best.ckpt", weights_only=True)
    content["thaw"]["classes"][0] = "ants"
    torch.save(content, tmp_path / "ants.ckpt")
    Image.new("RGB", (40, 10)).save(tmp_path / "a.png")
    assert run_thaw(monkeypatch, "predict", str(tmp_path / "ants.ckpt"), str(tmp_path / "a.png"), "--captcha") == 2
    assert "4 classes: ants" in capsys.readouterr().err
