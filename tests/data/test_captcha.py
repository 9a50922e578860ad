"""Drawn characters: the same for everyone, and nobody else's chance is touched."""

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
    return drawn(text, side, seed)

drawn, captcha.draw_captcha = captcha.draw_captcha, draw
captcha.build_captcha_folder("AB", {"train": 6}, 32, 0, Path(sys.argv[1]))
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.png")}


def test_the_same_seed_draws_the_same_pixels_and_another_seed_others() -> None:
    first, again, other = (draw_captcha("K", 64, seed).tobytes() for seed in ("one", "one", "two"))
    assert first == again
    assert first != other


def test_another_process_draws_the_same_pixels() -> None:
    environment = {**os.environ, "PYTHONHASHSEED": "5"}
    printed = subprocess.run(
        [sys.executable, "-c", PRINTS_A_DIGEST], env=environment, capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() == hashlib.sha256(draw_captcha("AB", 48, "7/train/A/0").tobytes()).hexdigest()


def test_each_split_has_a_folder_a_character_with_images_of_the_side_asked_for(tmp_path: Path) -> None:
    folder = build_captcha_folder("aB7", {"train": 2, "val": 0, "test": 1}, 40, 0, tmp_path)
    expected = {f"train/{name}/000{number}.png" for name in "aB7" for number in (0, 1)}
    assert set(contents(folder)) == expected | {f"test/{name}/0000.png" for name in "aB7"}
    assert not (folder / "val").exists()
    assert {Image.open(path).size for path in folder.rglob("*.png")} == {(40, 40)}


def test_no_two_images_of_a_folder_are_alike(tmp_path: Path) -> None:
    images = contents(build_captcha_folder("AB", {"train": 5, "test": 5}, 32, 0, tmp_path))
    assert len(set(images.values())) == len(images) == 20


def test_two_characters_of_the_same_number_are_drawn_by_chance_of_their_own(tmp_path: Path) -> None:
    folder = build_captcha_folder("AB", {"train": 4}, 32, 0, tmp_path) / "train"
    for number in range(4):
        grounds = {Image.open(folder / name / f"000{number}.png").getpixel((0, 0)) for name in "AB"}
        assert len(grounds) == 2


def ink(side: int) -> float:
    """Share of the dark pixels over a few images."""
    pixels = np.stack([np.asarray(draw_captcha("M", side, str(number)).convert("L")) for number in range(6)])
    return float((pixels < 200).mean())


def test_a_character_fills_its_image_alike_at_every_side() -> None:
    assert ink(96) == pytest.approx(ink(192), rel=0.4)  # 0.20 and 0.16; the dots of noise are of one size


def test_more_images_a_class_leave_the_earlier_ones_as_they_are(tmp_path: Path) -> None:
    few = contents(build_captcha_folder("AB", {"train": 2, "test": 1}, 32, 3, tmp_path))
    many = contents(build_captcha_folder("ABC", {"train": 4, "val": 1, "test": 2}, 32, 3, tmp_path))
    assert few.items() < many.items()


def test_another_seed_is_another_folder_with_other_images(tmp_path: Path) -> None:
    first, second = (build_captcha_folder("AB", {"train": 2}, 32, seed, tmp_path) for seed in (0, 1))
    assert first != second
    assert not set(contents(first).values()) & set(contents(second).values())


def test_drawing_leaves_all_other_chance_of_the_process_alone() -> None:
    functions = {name: getattr(secrets, name) for name in ("randbelow", "randbits", "choice")}
    random.seed(11)
    np.random.seed(11)
    expected = random.getstate(), np.random.get_state()[1].tolist()
    draw_captcha("A", 64, "seed")
    assert (random.getstate(), np.random.get_state()[1].tolist()) == expected
    assert captcha.image.secrets is secrets
    assert {name: getattr(secrets, name) for name in functions} == functions


def test_the_captcha_package_itself_goes_on_drawing_by_chance() -> None:
    draw_captcha("A", 64, "seed")
    first, second = (captcha.image.ImageCaptcha(64, 64).generate_image("A").tobytes() for _ in range(2))
    assert first != second


def test_a_folder_is_drawn_once(tmp_path: Path) -> None:
    folder = build_captcha_folder("AB", {"train": 1}, 32, 0, tmp_path)
    before = (folder / "train" / "A" / "0000.png").stat().st_mtime_ns
    assert build_captcha_folder("AB", {"train": 1}, 32, 0, tmp_path) == folder
    assert (folder / "train" / "A" / "0000.png").stat().st_mtime_ns == before


def test_a_process_killed_while_drawing_leaves_no_folder_and_the_next_draws_them_all(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", IS_KILLED_AT_ITS_FOURTH_IMAGE, tmp_path], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(contents(tmp_path)) == 3
    assert not list((tmp_path / "datasets").glob("captcha-*"))
    folder = build_captcha_folder("AB", {"train": 6}, 32, 0, tmp_path)
    assert len(contents(folder)) == 12
    assert not list((tmp_path / "datasets").glob(".*partial*"))


def test_captchas_are_single_characters_side_by_side_and_none_of_those_that_are_trained_on() -> None:
    three, four = (list(generate_captchas("AB", count, 4, 32, seed=5)) for count in (3, 4))
    assert [(text, image.tobytes()) for text, image in four[:3]] == [(text, image.tobytes()) for text, image in three]
    text, image = three[1]
    assert set(text) <= {"A", "B"}
    pieces = [image.crop((32 * place, 0, 32 * place + 32, 32)).tobytes() for place in range(4)]
    assert pieces == [draw_captcha(one, 32, f"captchas/5/1/{place}").tobytes() for place, one in enumerate(text)]
    assert len({text for text, _ in generate_captchas("ABCDEFGH", 30, 4, 32, seed=0)}) > 25
