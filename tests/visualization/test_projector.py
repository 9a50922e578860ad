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

from tests.data.tables import build_sample_table
from thaw.data.batches import ImageDataset
from thaw.data.image_store import ImageStore
from thaw.data.sample_table import Sample
from thaw.data.samples import Samples
from thaw.system.files import write_atomically
from thaw.visualization.plots.projector import (
    MAX_SPRITE_SIDE,
    build_projector_writers,
    compute_sprite_layout,
    select_positions,
)

SIDE, COUNT = 16, 7
COLORS = np.random.default_rng(0).integers(0, 255, (COUNT, 3), dtype=np.uint8)
NAMES = ["0.png", "1.png", "a\ttab\nand a line.png", "\udce9.png", "ä.png", "5.png", "6.png"]
FEATURES = np.concatenate([np.random.default_rng(1).normal(size=(COUNT - 1, 5)), np.full((1, 5), 1e-30)]).astype("f4")


def build_images() -> ImageDataset:
    """Build images of one color each."""
    pixels = np.repeat(COLORS, SIDE * SIDE, axis=0).ravel()
    starts, shapes = np.arange(COUNT) * SIDE * SIDE * 3, np.full((COUNT, 2), SIDE)
    return ImageDataset(ImageStore(pixels, starts, shapes, shapes), np.arange(COUNT) % 2, SIDE)


def write_projector(folder: Path, positions: np.ndarray) -> Path:
    rows = [Sample(name, number % 2, "train") for number, name in enumerate(NAMES)]
    samples = Samples(Path("/data"), build_sample_table(("ants", "bees"), rows), {})
    for name, write in build_projector_writers(FEATURES, samples, build_images(), positions, "features, final").items():
        write_atomically(folder / name, write)
    return folder


def read_colors(sprite: Image.Image, columns: int, count: int) -> list[list[int]]:
    """Return the color in the middle of each of the first `count` thumbnails."""
    side = sprite.width // columns
    rows_and_columns = [divmod(index, columns) for index in range(count)]
    middles = [(side * column + side // 2, side * row + side // 2) for row, column in rows_and_columns]
    return [list(sprite.getpixel(middle)) for middle in middles]  # type: ignore[arg-type]


def test_vectors_metadata_and_thumbnails_have_the_same_order(tmp_path: Path) -> None:
    positions = np.array([0, 2, 3, 4, 6])
    folder = write_projector(tmp_path, positions)
    assert np.array_equal(np.loadtxt(folder / "vectors.tsv", dtype=np.float32, delimiter="\t"), FEATURES[positions])
    rows = [line.split("\t") for line in (folder / "metadata.tsv").read_text(encoding="utf-8").splitlines()]
    assert rows[0] == ["class", "split", "path"]
    assert [row[2] for row in rows[1:]] == ["0.png", "a\\ttab\\nand a line.png", "\\xe9.png", "ä.png", "6.png"]
    assert [row[0] for row in rows[1:]] == ["ants", "ants", "bees", "ants", "ants"]
    with Image.open(folder / "sprite.png") as sprite:
        assert sprite.size == (3 * SIDE, 3 * SIDE)
        assert read_colors(sprite, 3, 5) == COLORS[positions].tolist()


@pytest.mark.parametrize("count", [1, 2, 397, 16_384, 16_385, 65_536])
def test_the_sprite_holds_all_thumbnails_within_the_projectors_limit(count: int) -> None:
    columns, side = compute_sprite_layout(count, 224)
    assert columns**2 >= count > (columns - 1) ** 2
    assert columns * side <= MAX_SPRITE_SIDE
    assert 32 <= side <= 64


def test_the_seed_draws_the_images_to_show_of_too_many() -> None:
    assert select_positions(5, 0, max_images=5).tolist() == [0, 1, 2, 3, 4]
    positions = select_positions(1000, 0, max_images=50)
    assert len(set(positions.tolist())) == 50
    assert positions.tolist() == sorted(positions.tolist()) == select_positions(1000, 0, max_images=50).tolist()
    assert positions.tolist() != select_positions(1000, 1, max_images=50).tolist()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start TensorBoard on the files; return the address of its projector."""
    folder = write_projector(tmp_path_factory.mktemp("projector"), np.arange(COUNT))
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


def fetch(address: str, route: str, **query: str) -> bytes:
    with urllib.request.urlopen(f"{address}/{route}?{urllib.parse.urlencode(query)}", timeout=20) as response:
        content: bytes = response.read()
        return content


def test_tensorboard_serves_vectors_metadata_and_sprite(address: str) -> None:
    assert json.loads(fetch(address, "runs")) == ["."]
    (embedding,) = json.loads(fetch(address, "info", run="."))["embeddings"]
    assert embedding["tensorShape"] == list(FEATURES.shape)
    assert embedding["sprite"]["singleImageDim"] == [SIDE, SIDE]
    query = {"run": ".", "name": embedding["tensorName"]}
    tensor = np.frombuffer(fetch(address, "tensor", **query, num_rows="100000"), np.float32)
    assert np.array_equal(tensor.reshape(FEATURES.shape), FEATURES)
    lines = fetch(address, "metadata", **query, num_rows="100000").decode().splitlines()
    assert len(lines) == COUNT + 1
    with Image.open(io.BytesIO(fetch(address, "sprite_image", **query))) as sprite:
        assert read_colors(sprite, 3, COUNT) == COLORS.tolist()
