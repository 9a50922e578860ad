"""Draw single captcha characters as an image folder, with the `captcha` package."""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from PIL import Image

from thaw.data.dataset_folder import build_dataset_folder
from thaw.system.cache_folder import compute_cache_key
from thaw.system.csv_files import format_rows
from thaw.system.files import write_text


def build_captcha_folder(characters: str, counts: Mapping[str, int], side: int, seed: int, cache_dir: Path) -> Path:
    """Return a folder SPLIT/CHARACTER/0000.png with `counts[split]` images of each character, `side` x `side` pixels.

    An image depends only on (seed, split, character, number) and the versions of captcha and Pillow, so a larger count
    leaves the earlier images unchanged. The folder is drawn once and then read from the cache.
    """
    package_versions = {name: version(name) for name in ("captcha", "pillow")}
    key = compute_cache_key(characters=characters, counts=dict(counts), side=side, seed=seed, drawn_by=package_versions)

    def draw_all(folder: Path) -> None:
        for split, count in counts.items():
            for character in characters:
                _draw_class(folder / split / character, count, character, side, f"{seed}/{split}")

    return build_dataset_folder(cache_dir / "datasets" / f"captcha-{key}", draw_all)


def _draw_class(folder: Path, count: int, character: str, side: int, seed: str) -> None:
    if count:
        folder.mkdir(parents=True)
    for number in range(count):
        draw_captcha(character, side, f"{seed}/{character}/{number}").save(folder / f"{number:04}.png")


def generate_captchas(
    characters: str, count: int, length: int, side: int, seed: int
) -> Iterator[tuple[str, Image.Image]]:
    """Yield `count` captchas of `length` random `characters`: the text and an image of its characters side by side.

    Each character is drawn as the training images are, with a seed of its own. Captcha n depends only on n and the
    arguments other than `count`.
    """
    for number in range(count):
        captcha_seed = f"captchas/{seed}/{number}"
        text = "".join(random.Random(captcha_seed).choices(characters, k=length))
        captcha_image = Image.new("RGB", (length * side, side))
        for index, character in enumerate(text):
            captcha_image.paste(draw_captcha(character, side, f"{captcha_seed}/{index}"), (index * side, 0))
        yield text, captcha_image


def draw_captcha(text: str, side: int, seed: str) -> Image.Image:
    """Draw `text` with `side` x `side` pixels per character; the same seed gives the same pixels."""
    captcha_module = _load_captcha_module(random.Random(seed))
    scale = side / 64  # the package's own font sizes, 42 to 56, fill 64 pixels
    font_sizes = tuple(round(size * scale) for size in (42, 50, 56))
    image: Image.Image = captcha_module.ImageCaptcha(len(text) * side, side, font_sizes=font_sizes).generate_image(text)
    return image


class _SeededSecrets:
    """Replace the three functions of `secrets` that the captcha package calls by a seeded generator's."""

    def __init__(self, rng: random.Random) -> None:
        self.randbelow = rng.randrange
        self.randbits = rng.getrandbits
        self.choice = rng.choice


def _load_captcha_module(rng: random.Random) -> ModuleType | Any:
    """Load a private copy of `captcha.image` that draws from `rng`.

    The package itself uses the operating system's random numbers, and patching it would affect the whole process.
    """
    spec = importlib.util.find_spec("captcha.image")
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.secrets = _SeededSecrets(rng)
    return module


def write_captchas(captchas: Iterable[tuple[str, Image.Image]], folder: Path) -> Path:
    """Write texts and images to `folder`: 0000.png and so on, then labels.csv (file,text), whose path is returned. A
    folder without labels.csv is incomplete."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [("file", "text")]
    for index, (text, image) in enumerate(captchas):
        image.save(folder / f"{index:04}.png")
        rows.append((f"{index:04}.png", text))
    write_text(folder / "labels.csv", format_rows(rows))
    return folder / "labels.csv"
