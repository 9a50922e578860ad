"""Measure how fast image files become features, and what decoding JPEGs at a fraction of their size changes.

    python -m benchmarks.decoding                    200 photographs of 12 megapixels, which it makes
    python -m benchmarks.decoding DIR|ZIP ...        and a pass over the images of each
    python -m benchmarks.decoding --photographs 40   fewer photographs

Four parts:

- decoders: milliseconds of one core for a photograph, with Pillow and, where they are installed, with simplejpeg and
  torchcodec.
- difference: of the stored pixels of photographs and of the images of each DIR, from those of full decoding.
- first run: `strategy=fixed` on the photographs, EfficientNet-Lite0 at 224 pixels, with an empty cache; everything
  after the imports counts.
- pass: decode the images of each DIR and compute their features, with an empty cache.

Runs and passes take turns with those of version 0.2, which decoded at full size and computed in float32. How busy they
keep the cores bounds what decoding during the frozen pass, on the same cores, could gain.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

from thaw.cli.train import launch
from thaw.config.compose import compose_recipe
from thaw.config.schema import Recipe
from thaw.data.factory import load_samples
from thaw.data.image import decode_image
from thaw.data.image_store import iter_decoded
from thaw.data.preprocessing import Decoding, Preprocessing
from thaw.data.resizing import resize_image
from thaw.data.samples import Samples
from thaw.features.views import build_plain_views
from thaw.system.process import available_cpus
from thaw.training import setup

PHOTOGRAPH_SIZE = (4000, 3000)
NUM_PICTURES = 10  # the other photographs are copies with a comment of their own
NUM_TIMED = 5
RESIZE_SIDES = (256, 64)  # the shorter side; at 64 pixels ordinary images are decoded at a fraction too
ROUNDS = 3
EPOCHS = 3
PREPROCESSING = Preprocessing(224, 256, "bicubic", (0.5,) * 3, (0.5,) * 3)
VERSIONS: dict[str, tuple[Decoding, tuple[str, ...]]] = {
    "version 0.2": ("full", ("trainer.precision=32-true",)),
    "scaled decoding": ("scaled", ("trainer.precision=32-true",)),
    "present": ("scaled", ()),
}
WARM_UP = ("dataset=captcha", "dataset.characters=AB", "dataset.train=4", "dataset.val=2", "dataset.test=2")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decoding")
    parser.add_argument("--photographs", type=int, default=200)
    parser.add_argument("folders", nargs="*", type=Path, metavar="DIR|ZIP")
    options = parser.parse_args(arguments)
    print(f"{available_cpus()} CPU cores")
    with tempfile.TemporaryDirectory() as folder:
        photographs = write_photographs(Path(folder) / "photographs", options.photographs)
        compare_decoders(sorted(photographs.rglob("*.jpg"))[:NUM_TIMED])
        for root in (photographs, *options.folders):
            report_difference(root, Path(folder) / "cache")
        run([*WARM_UP, "trainer.epochs=2"], "full", Path(folder) / "warm-up")  # imports what thaw imports late
        report(f"first run on {options.photographs} photographs", lambda: time_first_runs(photographs))
        for root in options.folders:
            report(f"pass over {root.name}", lambda root=root: time_passes(root))


def write_photographs(root: Path, count: int) -> Path:
    """Write JPEGs of 12 megapixels of two classes: structure of all sizes, and the noise of a sensor."""
    rng, (width, height) = np.random.default_rng(0), PHOTOGRAPH_SIZE
    contents: list[bytes] = []
    for _ in range(min(count, NUM_PICTURES)):
        pixels = rng.normal(0, 5, (height, width, 3)).astype(np.float32) + 128
        for cells in (4, 16, 64, 256):
            grid = rng.normal(0, 60 / cells**0.35, (cells, cells, 3)).clip(-127, 127) + 128
            layer = Image.fromarray(grid.astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
            pixels += np.asarray(layer, dtype=np.float32) - 128
        stream = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=90)
        contents.append(stream.getvalue())
    for index in range(count):
        path = root / "ab"[index % 2] / f"{index:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        content, comment = contents[index % NUM_PICTURES % len(contents)], f"{index:06}".encode()
        path.write_bytes(content[:2] + b"\xff\xfe\x00\x08" + comment + content[2:])
    return root


def compare_decoders(paths: Sequence[Path]) -> None:
    """Print milliseconds of one core for a file: decode, and decode and resize."""
    contents, min_side = [path.read_bytes() for path in paths], PREPROCESSING.min_decoded_side
    size = np.mean([len(content) for content in contents]) / 1e6
    print(f"\nmilliseconds of one core for a photograph of {size:.1f} MB, to RGB; at a fraction of its size")
    decoders: dict[str, tuple[Callable[[bytes], object], Callable[[bytes], object] | None]] = {
        "Pillow": (decode_with_pillow, lambda content: decode_with_pillow(content, min_side))
    }
    with contextlib.suppress(ImportError):
        simplejpeg: Any = importlib.import_module("simplejpeg")
        sides = {"min_height": min_side, "min_width": min_side, "min_factor": 1}
        decoders["simplejpeg"] = (simplejpeg.decode_jpeg, lambda content: simplejpeg.decode_jpeg(content, **sides))
    with contextlib.suppress(ImportError, RuntimeError):  # torchcodec raises a RuntimeError without its libraries
        torchcodec: Any = importlib.import_module("torchcodec.decoders")
        torch: Any = importlib.import_module("torch")
        decoders["torchcodec"] = (
            lambda content: torchcodec.decode_image(torch.frombuffer(bytearray(content), dtype=torch.uint8)),
            None,
        )
    for name, (decode, decode_fraction) in decoders.items():
        fraction_text = f"{time_calls(decode_fraction, contents):8.1f}" if decode_fraction else "       -"
        print(f"  {name:30} {time_calls(decode, contents):8.1f} {fraction_text}")
    preprocessings = {"resize with Pillow": replace(PREPROCESSING, decoding="full"), "resize with torch": PREPROCESSING}
    decoded_images = [[decode_image(path, side) for path in paths] for side in (None, min_side)]
    for name, preprocessing in preprocessings.items():
        times = [
            time_calls(lambda decoded, used=preprocessing: resize_image(decoded, used), images)
            for images in decoded_images
        ]
        print(f"  {name:30} {times[0]:8.1f} {times[1]:8.1f}")


def decode_with_pillow(content: bytes, min_side: int | None = None) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    if min_side:
        image.draft(None, (min_side, min_side))
    return image.convert("RGB")


def time_calls(call: Callable[[Any], object], items: Sequence[Any]) -> float:
    """Return milliseconds of this thread for an item: the fastest of three rounds."""
    seconds = []
    for _ in range(3):
        start = time.thread_time()
        for item in items:
            call(item)
        seconds.append(time.thread_time() - start)
    return 1e3 * min(seconds) / len(items)


def report_difference(root: Path, cache_dir: Path) -> None:
    """Print how the pixels that a store holds differ from those of full decoding."""
    samples = load_samples(compose_recipe(build_overrides(root, cache_dir)))
    for side in RESIZE_SIDES:
        means, largest = [], 0
        scaled = replace(PREPROCESSING, resize=side)
        images = (iter_resized(samples, preprocessing) for preprocessing in (scaled, replace(scaled, decoding="full")))
        for image, full_image in zip(*images, strict=True):
            if not isinstance(image, str) and not isinstance(full_image, str):
                difference = np.abs(image.astype(np.int16) - full_image)
                means.append(difference.mean())
                largest = max(largest, int(difference.max()))
        text = f"mean {np.mean(means):.3f}, at most {largest}, of 255"
        print(f"difference of {len(means):,} images of {root.name}, resized to {side} pixels: {text}")


def iter_resized(samples: Samples, preprocessing: Preprocessing) -> Iterator[np.ndarray | str]:
    return iter_decoded(samples, lambda decoded: resize_image(decoded, preprocessing), preprocessing.min_decoded_side)


def build_overrides(root: Path, cache_dir: Path) -> list[str]:
    dataset = ("dataset=folder", f"dataset.root={root.absolute()}", "dataset.image_size=224")
    return [*dataset, f"data.cache_dir={cache_dir}", "strategy=fixed", f"trainer.epochs={EPOCHS}"]


@dataclass(frozen=True)
class Duration:
    """Seconds on the clock, and of all cores together."""

    wall_s: float
    cpu_s: float


def measure(action: Callable[[], object]) -> Duration:
    start, cpu_start = time.perf_counter(), time.process_time()
    action()
    return Duration(time.perf_counter() - start, time.process_time() - cpu_start)


def time_first_runs(root: Path) -> Iterator[tuple[str, Duration]]:
    for name, (decoding, overrides) in VERSIONS.items():
        with tempfile.TemporaryDirectory() as folder:
            run_overrides = [*build_overrides(root, Path(folder) / "cache"), *overrides]
            yield name, measure(lambda used=(run_overrides, decoding, Path(folder) / "outputs"): run(*used))


def run(overrides: Sequence[str], decoding: Decoding, folder: Path) -> None:
    """Run thaw, with images decoded as `decoding` says."""
    with mock.patch.object(setup, "_find_decoding", return_value=decoding), contextlib.redirect_stdout(io.StringIO()):
        assert launch([*overrides, f"output_dir={folder}"]) == 0


def time_passes(root: Path) -> Iterator[tuple[str, Duration]]:
    for name, (decoding, overrides) in VERSIONS.items():
        with tempfile.TemporaryDirectory() as folder:
            recipe = compose_recipe([*build_overrides(root, Path(folder)), *overrides])
            load_samples(recipe)  # extracts an archive, which is no part of a pass
            yield name, measure(lambda used=(recipe, decoding): pass_over(*used))


def pass_over(recipe: Recipe, decoding: Decoding) -> None:
    """Decode the images of `recipe` and compute their features, pooled after the last stage."""
    components = setup.build_components(recipe, decoding=decoding)
    network = components.model.network
    cache = components.build_feature_cache(build_plain_views(components.data.samples))
    cache.get_or_compute(network, cache.compute_keys(network, [len(network.stages)]))


def report(title: str, time_all: Callable[[], Iterator[tuple[str, Duration]]]) -> None:
    """Print the median seconds of each version, how many times faster than version 0.2 it is, and how busy the cores
    were."""
    durations: dict[str, list[Duration]] = {name: [] for name in VERSIONS}
    for _ in range(ROUNDS):
        for name, duration in time_all():
            durations[name].append(duration)
    medians = {name: statistics.median(duration.wall_s for duration in values) for name, values in durations.items()}
    print(f"\n{title}, seconds")
    for name, value in medians.items():
        cpu_s = statistics.median(duration.cpu_s for duration in durations[name])
        busy = f"cores {cpu_s / value / available_cpus():4.0%} busy"
        print(f"  {name:30} {value:8.1f}   {medians['version 0.2'] / value:5.2f} times as fast   {busy}")


if __name__ == "__main__":
    main()
