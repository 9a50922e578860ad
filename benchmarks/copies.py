"""Plant near copies into data sets and measure how many of them are found.

    python -m benchmarks.copies NAME=DIR [NAME=DIR ...] [key=value ...]       folders of images

For each data set, 200 images are copied into their own folder: resized to 50 or 70 % of each side, recompressed as
JPEG of quality 30 or 50, mirrored, cut by 5 or 10 % of each side at a random place, or two of these.
`found` counts the planted copies that are paired with their original. `others` are pairs of images that do not come
from one original: false alarms, or copies that the data set has itself, which `--list` prints for a person to look at.
Precision counts all of them as false. Seconds are those of the search, without the features.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from thaw.config.compose import compose_recipe
from thaw.data.image import IMAGE_SUFFIXES, decode_image
from thaw.data.image_file import BrokenImageError
from thaw.data.inspection import find_stored_copies
from thaw.training.extraction import extract_features

RECIPE = ("dataset=folder", "data.broken=skip", "trainer.accelerator=cpu")
NUM_PLANTED = 200
QUALITY = 90  # of the copies that are not recompressed
Transformation = Callable[[Image.Image, np.random.Generator], Image.Image]


def _crop(fraction: float) -> Transformation:
    def crop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        width, height = (round(side * (1 - fraction)) for side in image.size)
        left, top = int(rng.integers(image.width - width + 1)), int(rng.integers(image.height - height + 1))
        return image.crop((left, top, left + width, top + height))

    return crop


def _resize(fraction: float) -> Transformation:
    def resize(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        sides = [max(1, round(side * fraction)) for side in image.size]
        return image.resize((sides[0], sides[1]), Image.Resampling.BICUBIC)

    return resize


def _recompress(quality: int) -> Transformation:
    def recompress(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=quality)
        return Image.open(stream).convert("RGB")

    return recompress


TRANSFORMATIONS: dict[str, dict[str, Transformation]] = {  # in the order in which two of them are applied
    "crop": {"crop 5%": _crop(0.05), "crop 10%": _crop(0.10)},
    "mirror": {"mirror": lambda image, _: ImageOps.mirror(image)},
    "resize": {"resize 50%": _resize(0.5), "resize 70%": _resize(0.7)},
    "JPEG": {"JPEG 30": _recompress(30), "JPEG 50": _recompress(50)},
}
FUNCTIONS = {name: function for group in TRANSFORMATIONS.values() for name, function in group.items()}
KINDS = {name: kind for kind, group in TRANSFORMATIONS.items() for name in group}
SINGLES = [(name,) for name in FUNCTIONS]
COMBINATIONS = [
    (first, second)
    for index, first in enumerate(FUNCTIONS)
    for second in list(FUNCTIONS)[index + 1 :]
    if KINDS[first] != KINDS[second]
]
Planted = list[tuple[str, str, tuple[str, ...]]]


def main(arguments: list[str]) -> None:
    lists_others = "--list" in arguments
    settings = [text for text in arguments if text != "--list"]
    roots = {name: Path(value) for name, _, value in (text.partition("=") for text in settings) if Path(value).is_dir()}
    overrides = [text for text in settings if text.partition("=")[0] not in roots]
    print(f"| data set | images | found | others | precision | {' | '.join(FUNCTIONS)} | s | CPU s |")
    print("|---|---|---|---|---|" + "---|" * (len(FUNCTIONS) + 2))
    for name, root in roots.items():
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "data"
            shutil.copytree(root, copy)
            print(_measure(name, copy, plant_copies(copy, NUM_PLANTED), overrides, lists_others), flush=True)


def plant_copies(root: Path, count: int) -> Planted:
    """Write copies beside images below `root`. Returns the paths of image and copy, and what was done."""
    paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    rng, planted = np.random.default_rng(0), []
    for number, index in enumerate(rng.permutation(len(paths))[:count]):
        kinds = COMBINATIONS if number % 2 else SINGLES
        names = kinds[number // 2 % len(kinds)]
        try:
            image = decode_image(paths[index]).turn_upright()
        except BrokenImageError:
            continue
        for name in names:
            image = FUNCTIONS[name](image, rng)
        copy = paths[index].with_name(f"planted_{number:03}.jpg")
        qualities = [int(name.split()[1]) for name in names if KINDS[name] == "JPEG"]
        image.save(copy, quality=qualities[0] if qualities else QUALITY)
        planted.append((str(paths[index].relative_to(root)), str(copy.relative_to(root)), names))
    return planted


def _measure(name: str, root: Path, planted: Planted, overrides: list[str], lists_others: bool) -> str:
    extraction = extract_features(compose_recipe([*RECIPE, f'dataset.root="{root}"', *overrides]))
    samples, features = extraction.samples, extraction.values.reshape(len(extraction.samples.samples), -1)
    start_time, start_cpu_time = time.perf_counter(), time.process_time()
    copies = find_stored_copies(samples, extraction.images.store, features)
    seconds, cpu_seconds = time.perf_counter() - start_time, time.process_time() - start_cpu_time
    pairs = {frozenset((extraction.paths[pair.first], extraction.paths[pair.second])) for pair in copies}
    originals = {copy: original for original, copy, _ in planted}
    others = [sorted(pair) for pair in pairs if len({originals.get(path, path) for path in pair}) > 1]
    results = [(frozenset((original, copy)) in pairs, names) for original, copy, names in planted]
    num_found = sum(is_found for is_found, _ in results)
    for pair in sorted(others) if lists_others else []:
        print(" ~ ".join(pair), file=sys.stderr)
    recalls = [np.mean([is_found for is_found, names in results if function in names]) for function in FUNCTIONS]
    columns = " | ".join(f"{recall:.2f}" for recall in recalls)
    precision = num_found / max(1, num_found + len(others))
    return (
        f"| {name} | {len(samples.samples)} | {num_found} of {len(planted)} | {len(others)} | {precision:.3f} "
        f"| {columns} | {seconds:.0f} | {cpu_seconds:.0f} |"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
