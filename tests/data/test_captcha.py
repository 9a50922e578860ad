"""Captchas are reproducible, and drawing them does not affect other random numbers."""

from __future__ import annotations

import hashlib
import os
import random
import secrets
import signal
import subprocess
import sys
from pathlib import Path

import captcha.image
import numpy as np
import pytest
from PIL import Image

from thaw.data.captcha import build_captcha_folder, draw_captcha, generate_captchas

PRINTS_A_DIGEST = """
import hashlib
from thaw.data.captcha import draw_captcha
print(hashlib.sha256(draw_captcha("AB", 48, "7/train/A/0").tobytes()).hexdigest())
"""
IS_KILLED_AT_ITS_FOURTH_IMAGE = """
import os, signal, sys
from pathlib import Path
from thaw.data import captcha

def draw(text, side, seed):
    if seed == "0/train/A/3":
        os.kill(os.getpid(), signal.SIGKILL)
    return original_draw(text, side, seed)

original_draw, captcha.draw_captcha = captcha.draw_captcha, draw
captcha.build_captcha_folder("AB", {"train": 6}, 32, 0, Path(sys.argv[1]))
"""


def read_contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.png")}


def test_pixels_depend_on_the_seed() -> None:
    first, again, other = (draw_captcha("K", 64, seed).tobytes() for seed in ("a", "a", "b"))
    assert first == again
    assert first != other


def test_another_process_draws_the_same_pixels() -> None:
    environment = {**os.environ, "PYTHONHASHSEED": "5"}
    process = subprocess.run(
        [sys.executable, "-c", PRINTS_A_DIGEST], env=environment, capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == hashlib.sha256(draw_captcha("AB", 48, "7/train/A/0").tobytes()).hexdigest()


def test_each_split_has_a_folder_per_character_with_images_of_the_requested_size(tmp_path: Path) -> None:
    folder = build_captcha_folder("aB7", {"train": 2, "val": 0, "test": 1}, 40, 0, tmp_path)
    expected = {f"train/{name}/000{number}.png" for name in "aB7" for number in (0, 1)}
    assert set(read_contents(folder)) == expected | {f"test/{name}/0000.png" for name in "aB7"}
    assert not (folder / "val").exists()
    assert {Image.open(path).size for path in folder.rglob("*.png")} == {(40, 40)}


def test_all_images_of_a_folder_differ(tmp_path: Path) -> None:
    images = read_contents(build_captcha_folder("AB", {"train": 5, "test": 5}, 32, 0, tmp_path))
    assert len(set(images.values())) == len(images) == 20


def test_characters_with_the_same_number_are_drawn_with_different_seeds(tmp_path: Path) -> None:
    folder = build_captcha_folder("AB", {"train": 4}, 32, 0, tmp_path) / "train"
    for number in range(4):
        background_colors = {Image.open(folder / name / f"000{number}.png").getpixel((0, 0)) for name in "AB"}
        assert len(background_colors) == 2


def measure_ink(side: int) -> float:
    """Measure the fraction of dark pixels over a few images."""
    pixels = np.stack([np.asarray(draw_captcha("M", side, str(number)).convert("L")) for number in range(6)])
    return float((pixels < 200).mean())


def test_a_character_fills_its_image_at_every_size() -> None:
    assert measure_ink(96) == pytest.approx(measure_ink(192), rel=0.4)  # 0.20 and 0.16; the noise dots do not scale


def test_a_larger_count_leaves_the_earlier_images_unchanged(tmp_path: Path) -> None:
    few = read_contents(build_captcha_folder("AB", {"train": 2, "test": 1}, 32, 3, tmp_path))
    many = read_contents(build_captcha_folder("ABC", {"train": 4, "val": 1, "test": 2}, 32, 3, tmp_path))
    assert few.items() < many.items()


def test_another_seed_gives_another_folder_with_other_images(tmp_path: Path) -> None:
    first, second = (build_captcha_folder("AB", {"train": 2}, 32, seed, tmp_path) for seed in (0, 1))
    assert first != second
    assert not set(read_contents(first).values()) & set(read_contents(second).values())


def test_drawing_leaves_other_random_generators_unchanged() -> None:
    functions = {name: getattr(secrets, name) for name in ("randbelow", "randbits", "choice")}
    random.seed(11)
    np.random.seed(11)
    expected = random.getstate(), np.random.get_state()[1].tolist()
    draw_captcha("A", 64, "seed")
    assert (random.getstate(), np.random.get_state()[1].tolist()) == expected
    assert captcha.image.secrets is secrets
    assert {name: getattr(secrets, name) for name in functions} == functions


def test_the_captcha_package_itself_stays_random() -> None:
    draw_captcha("A", 64, "seed")
    first, second = (captcha.image.ImageCaptcha(64, 64).generate_image("A").tobytes() for _ in range(2))
    assert first != second


def test_a_folder_is_drawn_once(tmp_path: Path) -> None:
    folder = build_captcha_folder("AB", {"train": 1}, 32, 0, tmp_path)
    before = (folder / "train" / "A" / "0000.png").stat().st_mtime_ns
    assert build_captcha_folder("AB", {"train": 1}, 32, 0, tmp_path) == folder
    assert (folder / "train" / "A" / "0000.png").stat().st_mtime_ns == before


def test_a_process_killed_while_drawing_leaves_no_folder(tmp_path: Path) -> None:
    process = subprocess.run([sys.executable, "-c", IS_KILLED_AT_ITS_FOURTH_IMAGE, tmp_path], check=False)
    assert process.returncode == -signal.SIGKILL
    assert len(read_contents(tmp_path)) == 3
    assert not list((tmp_path / "datasets").glob("captcha-*"))
    folder = build_captcha_folder("AB", {"train": 6}, 32, 0, tmp_path)
    assert len(read_contents(folder)) == 12
    assert not list((tmp_path / "datasets").glob(".*partial*"))


def test_captchas_are_new_single_characters_side_by_side() -> None:
    three, four = (list(generate_captchas("AB", count, 4, 32, seed=5)) for count in (3, 4))
    assert [(text, image.tobytes()) for text, image in four[:3]] == [(text, image.tobytes()) for text, image in three]
    text, image = three[1]
    assert set(text) <= {"A", "B"}
    characters = [image.crop((32 * index, 0, 32 * index + 32, 32)).tobytes() for index in range(4)]
    assert characters == [
        draw_captcha(character, 32, f"captchas/5/1/{index}").tobytes() for index, character in enumerate(text)
    ]
    assert len({text for text, _ in generate_captchas("ABCDEFGH", 30, 4, 32, seed=0)}) > 25
