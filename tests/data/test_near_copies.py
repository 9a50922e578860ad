"""Copies of photographs are found whatever was done to them, and similar photographs are not taken for copies."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from scipy.ndimage import gaussian_filter

from tests.data.tables import build_hashes, build_sample_table
from thaw.data.image import decode_image
from thaw.data.near_copies import CopyPair, build_thumbnail, choose_max_mismatch, collect_thumbnails, find_copies
from thaw.data.sample_table import Sample
from thaw.data.samples import Samples


def make_photograph(seed: int, shared_seed: int | None = None) -> Image.Image:
    """Make a picture of blurred shapes, 200 x 160; those of one `shared_seed` have the same large shapes."""
    rng = np.random.default_rng(seed)
    layers = [gaussian_filter(rng.normal(0, sigma, (160, 200, 3)), (sigma, sigma, 0)) for sigma in (2, 5)]
    shapes = np.random.default_rng(seed if shared_seed is None else shared_seed).normal(0, 20, (160, 200, 3))
    pixels = 120 + 25 * sum(layers) + 25 * gaussian_filter(shapes, (16, 16, 0))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def recompress(image: Image.Image, quality: int = 30) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


def find(images: list[Image.Image], splits: list[str] | None = None, hashes: list[str] | None = None) -> list[CopyPair]:
    positions = range(len(images))
    splits = splits or ["train"] * len(images)
    samples = [Sample(f"{position}.png", 0, split) for position, split in zip(positions, splits, strict=True)]
    hashes = hashes or [str(position) for position in positions]
    table = Samples(Path(), build_sample_table(("a", "b"), samples), {}, build_hashes(hashes))
    sizes = np.array([image.size[::-1] for image in images])
    return find_copies(table, collect_thumbnails([build_thumbnail(image) for image in images], sizes))


CHANGES = {
    "resized to 50%": lambda image: image.resize((100, 80)),
    "recompressed": recompress,
    "mirrored": ImageOps.mirror,
    "cropped to 90% of the height and 90% of the width": lambda image: image.crop((15, 3, 195, 147)),
    "mirrored, cropped to 90% of the height and 95% of the width": lambda image: ImageOps.mirror(
        image.crop((0, 12, 190, 156))
    ),
    "mirrored, resized to 50%": lambda image: recompress(ImageOps.mirror(image).resize((100, 80))),
}


def test_changed_copies_are_found_with_what_was_done_and_nothing_else() -> None:
    originals = [make_photograph(seed) for seed in range(12)]
    copies = [change(originals[number]) for number, change in enumerate(CHANGES.values())]
    pairs = find(originals + copies)
    assert [(pair.first, pair.second, pair.difference) for pair in pairs] == [
        (number, 12 + number, difference) for number, difference in enumerate(CHANGES)
    ]
    assert all(not pair.is_exact and 0.8 < pair.score <= 1 for pair in pairs)


def test_similar_pictures_of_one_kind_are_no_copies() -> None:
    similar = [make_photograph(seed, shared_seed=99) for seed in range(12)]
    assert find(similar) == []
    assert [(pair.first, pair.second) for pair in find([*similar, recompress(similar[3])])] == [(3, 12)]


def test_equal_pixels_in_other_files_are_exact_copies() -> None:
    image = make_photograph(0)
    pairs = find([image, make_photograph(1), image, image], hashes=["x", "y", "z", "x"])
    assert pairs == [
        CopyPair(0, 2, True, "equal pixels, other files"),
        CopyPair(0, 3, True, "equal files"),
    ]


def test_a_near_copy_is_paired_with_an_exact_copy_of_each_split() -> None:
    image = make_photograph(0)
    pairs = find([image, image, image, recompress(image)], ["train", "train", "val", "test"])
    assert [(pair.first, pair.second) for pair in pairs if not pair.is_exact] == [(0, 3), (2, 3)]


def test_a_copy_that_exif_data_turns_upright_is_found(tmp_path: Path) -> None:
    image, exif = make_photograph(0), Image.Exif()
    exif[0x0112] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.jpg", exif=exif, quality=90)
    pairs = find([image, make_photograph(1), decode_image(tmp_path / "turned.jpg").turn_upright()])
    assert [(pair.first, pair.second, pair.difference) for pair in pairs] == [(0, 2, "recompressed")]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_images_and_images_without_contrast_have_no_near_copies(count: int) -> None:
    assert find([Image.new("RGB", (40, 40 + number), "gray") for number in range(count)]) == []
    assert find([make_photograph(number) for number in range(count)]) == []


def test_the_mismatch_that_copies_may_have_is_smaller_where_other_pairs_come_near() -> None:
    copies = np.linspace(0.2, 1.0, 50)
    others = 6.4 * np.linspace(0, 1, 2000)[1:] ** 0.25  # their number grows with the fourth power of the mismatch
    assert choose_max_mismatch(np.concatenate([copies, [9.0]])) == pytest.approx(1.6)
    max_mismatch = choose_max_mismatch(np.concatenate([copies, others]))
    assert 1.0 <= max_mismatch < 1.3
    assert (others <= max_mismatch).sum() <= 6
