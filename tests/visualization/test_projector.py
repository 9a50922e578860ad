"""Features in TensorBoard's projector, served by the real TensorBoard."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from thaw.data.batches import ImageDataset
from thaw.data.image_store import ImageStore
from thaw.data.samples import Sample, Samples
from thaw.system.files import write_atomically
from thaw.visualization.plots.projector import (
    MAX_SPRITE_SIDE,
    build_projector_writers,
    compute_sprite_layout,
    select_positions,
)

SIDE, COUNT = 16, 7
COLOURS = np.random.default_rng(0).integers(0, 255, (COUNT, 3), dtype=np.uint8)
NAMES = ["0.png", "1.png", "a\ttab\nand a line.png", "\udce9.png", "ä.png", "5.png", "6.png"]
FEATURES = np.concatenate([np.random.default_rng(1).normal(size=(COUNT - 1, 5)), np.full((1, 5), 1e-30)]).astype("f4")


def images() -> ImageDataset:
    """Each of one colour."""
    pixels = np.repeat(COLOURS, SIDE * SIDE, axis=0).ravel()
    starts, shapes = np.arange(COUNT) * SIDE * SIDE * 3, np.full((COUNT, 2), SIDE)
    return ImageDataset(ImageStore(pixels, starts, shapes, shapes), np.arange(COUNT) % 2, SIDE)


def written(folder: Path, positions: np.ndarray) -> Path:
    rows = tuple(Sample(name, number % 2, "train") for number, name in enumerate(NAMES))
    samples = Samples(Path("/data"), ("ants", "bees"), rows, (), "0" * 16)
    for name, write in build_projector_writers(FEATURES, samples, images(), positions, "pictures, final").items():
        write_atomically(folder / name, write)
    return folder


def colours_in(sheet: Image.Image, columns: int, count: int) -> list[list[int]]:
    """The colour in the middle of each of the first `count` thumbnails."""
    side = sheet.width // columns
    middles = [(side * (one % columns) + side // 2, side * (one // columns) + side // 2) for one in range(count)]
    return [list(sheet.getpixel(place)) for place in middles]  # type: ignore[arg-type]


def test_vectors_rows_and_thumbnails_are_in_one_order(tmp_path: Path) -> None:
    positions = np.array([0, 2, 3, 4, 6])
    folder = written(tmp_path, positions)
    assert np.array_equal(np.loadtxt(folder / "vectors.tsv", dtype=np.float32, delimiter="\t"), FEATURES[positions])
    rows = [line.split("\t") for line in (folder / "metadata.tsv").read_text(encoding="utf-8").splitlines()]
    assert rows[0] == ["class", "split", "path"]
    assert [row[2] for row in rows[1:]] == ["0.png", "a\\ttab\\nand a line.png", "\\xe9.png", "ä.png", "6.png"]
    assert [row[0] for row in rows[1:]] == ["ants", "ants", "bees", "ants", "ants"]
    with Image.open(folder / "sprite.png") as sheet:
        assert sheet.size == (3 * SIDE, 3 * SIDE)
        assert colours_in(sheet, 3, 5) == COLOURS[positions].tolist()


@pytest.mark.parametrize("count", [1, 2, 397, 16_384, 16_385, 65_536])
def test_the_sheet_holds_all_thumbnails_and_is_no_larger_than_the_projector_takes(count: int) -> None:
    columns, side = compute_sprite_layout(count, 224)
    assert columns**2 >= count > (columns - 1) ** 2
    assert columns * side <= MAX_SPRITE_SIDE
    assert 32 <= side <= 64


def test_of_more_images_than_fit_a_sample_of_the_seed_is_shown() -> None:
    assert select_positions(5, 0, max_images=5).tolist() == [0, 1, 2, 3, 4]
    drawn = select_positions(1000, 0, max_images=50)
    assert len(set(drawn.tolist())) == 50
    assert drawn.tolist() == sorted(drawn.tolist()) == select_positions(1000, 0, max_images=50).tolist()
    assert drawn.tolist() != select_positions(1000, 1, max_images=50).tolist()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a TensorBoard's projector that looks at the files, on a port of its own choice."""
    folder = written(tmp_path_factory.mktemp("projector"), np.arange(COUNT))
    options = ["--logdir", str(folder), "--port", "0", "--host", "127.0.0.1", "--load_fast", "false"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    line = next(line for line in process.stderr if "http://" in line)
    yield f"http://{line.split('http://')[1].split('/')[0]}/data/plugin/projector"
    process.kill()
    process.wait()
    process.stderr.close()


def served(address: str, route: str, **query: str) -> bytes:
    with urllib.request.urlopen(f"{address}/{route}?{urllib.parse.urlencode(query)}", timeout=20) as response:
        content: bytes = response.read()
        return content


def test_tensorboard_serves_the_vectors_the_rows_and_the_sheet(address: str) -> None:
    assert json.loads(served(address, "runs")) == ["."]
    (shown,) = json.loads(served(address, "info", run="."))["embeddings"]
    assert shown["tensorShape"] == list(FEATURES.shape)
    assert shown["sprite"]["singleImageDim"] == [SIDE, SIDE]
    about = {"run": ".", "name": shown["tensorName"]}
    tensor = np.frombuffer(served(address, "tensor", **about, num_rows="100000"), np.float32)
    assert np.array_equal(tensor.reshape(FEATURES.shape), FEATURES)
    lines = served(address, "metadata", **about, num_rows="100000").decode().splitlines()
    assert len(lines) == COUNT + 1
    with Image.open(io.BytesIO(served(address, "sprite_image", **about))) as sheet:
        assert colours_in(sheet, 3, COUNT) == COLOURS.tolist()
