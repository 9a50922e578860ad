"""Measure how start-up grows with the number of images: seconds from the command to the first batch, and peak memory.

    python -m benchmarks.scale                         10,000, 100,000 and 1,000,000 images, which take 4 GB of disk
    python -m benchmarks.scale 1000 20000 --folder DIR

The images are PNG files of 8 x 8 pixels, all different, in 100 class folders, written to a temporary folder (in DIR)
and removed at the end. Each measurement is a process of its own that composes the recipe, reads the folder, draws the
splits, decodes the images, builds network and plan, and takes the first batch of the first epoch (ResNet-18 from
scratch, 16 pixels). Seconds count from the end of the imports. The first process starts with an empty cache; the second
one finds hashes and decoded images in it. Memory is the most that the process has held, besides that of a run with
100 images.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

COUNTS = (10_000, 100_000, 1_000_000)
SMALL_COUNT, NUM_CLASSES = 1000, 100  # ten images of a class, so that each split has some
SIDE, IMAGE_SIZE = 8, 16  # pixels of a file, and of the network's input
BYTES_PER_FILE = 4096  # a block
PAST_NS = 86_400_000_000_000  # files of today would not be remembered (`thaw.data.file_index.RESOLUTION_NS`)
RECIPE = ("dataset=folder", "backbone=resnet18", "backbone.weights=none", "strategy=scratch", "trainer.num_workers=0")


class Measurement(NamedTuple):
    """What one process needed: seconds from the end of its imports to the first batch, and bytes at its peak."""

    seconds: float
    peak_bytes: int


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description="Measure start-up with many images.")
    parser.add_argument("counts", nargs="*", type=int, default=COUNTS, help="numbers of images")
    parser.add_argument("--folder", type=Path, help="folder for the images (default: that of temporary files)")
    parser.add_argument("--measure", nargs=2, metavar=("ROOT", "CACHE"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        print(json.dumps(measure(*map(Path, options.measure))))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        check_free_space(Path(folder), max(options.counts))
        _, small = run_measurements(Path(folder), SMALL_COUNT)
        print("|     images | cold, s | warm, s | warm, us an image | cold, MB | warm, MB |")
        print("|---:|---:|---:|---:|---:|---:|")
        for count in options.counts:
            print(format_row(count, small, *run_measurements(Path(folder), count)), flush=True)


def check_free_space(folder: Path, count: int) -> None:
    """Exit if `count` files, their decoded images and caches do not fit."""
    status, needed_bytes = os.statvfs(folder), count * (BYTES_PER_FILE + 3 * IMAGE_SIZE**2 * 2)
    free_bytes = status.f_bavail * status.f_frsize
    if needed_bytes > free_bytes or (status.f_files and status.f_favail < 1.01 * count):
        sys.exit(f"{count:,} files need {needed_bytes / 1e9:.1f} GB and inodes in {folder}; --folder names another")


def run_measurements(folder: Path, count: int) -> tuple[Measurement, Measurement]:
    """Write `count` images, measure with an empty cache and again, and remove everything."""
    root, cache = folder / "images", folder / "cache"
    write_images(root, count)
    command = [sys.executable, "-m", "benchmarks.scale", "--measure", str(root), str(cache)]
    outputs = [subprocess.run(command, check=True, capture_output=True, text=True).stdout for _ in range(2)]
    shutil.rmtree(root)
    shutil.rmtree(cache)
    cold, warm = (Measurement(*json.loads(output.splitlines()[-1])) for output in outputs)
    return cold, warm


def write_images(root: Path, count: int) -> None:
    """Write `count` different PNG files into class folders."""
    rng, old_ns = np.random.default_rng(0), time.time_ns() - PAST_NS
    for label in range(NUM_CLASSES):
        (root / f"class{label:03}").mkdir(parents=True)
    for number in range(count):
        file = f"{root}/class{number % NUM_CLASSES:03}/{number:07}.png"
        with open(file, "wb") as stream:  # noqa: PTH123 - a million of them
            stream.write(encode_png(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)))
        os.utime(file, ns=(old_ns, old_ns))


def encode_png(pixels: np.ndarray) -> bytes:
    """Return a PNG of RGB pixels, uint8 [height, width, 3]: five times faster than Pillow for so few."""
    height, width = pixels.shape[:2]
    lines = b"".join(b"\0" + line.tobytes() for line in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(lines, 1)), (b"IEND", b"")]
    parts = [struct.pack(">I", len(data)) + name + data + _pack_checksum(name + data) for name, data in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _pack_checksum(content: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(content))


def measure(root: Path, cache: Path) -> Measurement:
    """Start a run up to the first batch of its first epoch."""
    from thaw.config.compose import compose_recipe
    from thaw.runs.lifecycle import create_run
    from thaw.training.setup import setup_training

    start = time.perf_counter()
    settings = (f"dataset.root={root}", f"data.cache_dir={cache}", f"dataset.image_size={IMAGE_SIZE}")
    recipe = compose_recipe([*RECIPE, *settings])
    with tempfile.TemporaryDirectory() as folder:
        next(iter(setup_training(create_run(recipe, Path(folder))).loaders.train))
    return Measurement(time.perf_counter() - start, read_peak_bytes())


def read_peak_bytes() -> int:
    """Return the most memory that this process has held."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def format_row(count: int, small: Measurement, cold: Measurement, warm: Measurement) -> str:
    """Return a row of the table; memory is what goes beyond `small`."""
    megabytes = [(measurement.peak_bytes - small.peak_bytes) / 1e6 for measurement in (cold, warm)]
    microseconds = 1e6 * (warm.seconds - small.seconds) / count
    cells = [f"{number:.1f}" for number in (cold.seconds, warm.seconds, microseconds)]
    cells += [f"{number:,.0f}" for number in megabytes]
    return f"| {count:,} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main(sys.argv[1:])
