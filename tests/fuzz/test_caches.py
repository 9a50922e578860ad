"""Caches with drawn damage give the results of an empty cache, and a warning for each damaged entry that is used."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import thaw
from tests.conftest import run_thaw
from tests.damage import WarningReporter
from tests.images import write_image_folder
from thaw.config.schema import Recipe
from thaw.system.cache_entries import list_entries
from thaw.training.extraction import extract_features

NUM_CACHES = 100


def flip_bits(rng: random.Random, file: Path) -> None:
    content = bytearray(file.read_bytes())
    for _ in range(rng.randint(1, 5)):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)


def fill_range_with_zeros(rng: random.Random, file: Path) -> None:
    content = bytearray(file.read_bytes())
    start = rng.randrange(len(content))
    block = content[start : start + rng.randint(1, len(content))]
    content[start : start + len(block)] = bytes(len(block)) if any(block) else b"\1" * len(block)
    file.write_bytes(content)


def truncate(rng: random.Random, file: Path) -> None:
    file.write_bytes(file.read_bytes()[: rng.randrange(file.stat().st_size)])


def append(rng: random.Random, file: Path) -> None:
    file.write_bytes(file.read_bytes() + rng.randbytes(rng.randint(1, 50)))


def delete(rng: random.Random, file: Path) -> None:
    file.unlink()


def replace_by_folder(rng: random.Random, file: Path) -> None:
    file.unlink()
    file.mkdir()


def replace_by_broken_link(rng: random.Random, file: Path) -> None:
    file.unlink()
    file.symlink_to("nowhere")


def replace_by_foreign_content(rng: random.Random, file: Path) -> None:
    contents = [b"null", b"[]", b"{}", b"\x93NUMPY\1\0", b"<html>404</html>", b"\xff\xfe", b"[" * 10_000]
    values = {"rows": -3, "shape": [-1], "dtype": "float33", "seconds": {"contiguous": "fast"}, "checksum": 7}
    file.write_bytes(rng.choice([*contents, json.dumps(values).encode()]))


def swap(rng: random.Random, file: Path) -> None:
    other = rng.choice([path for path in sorted(file.parent.parent.rglob("*")) if path.is_file() and path != file])
    content, other_content = file.read_bytes(), other.read_bytes()
    file.write_bytes(other_content)
    other.write_bytes(content)


DAMAGES: list[Callable[[random.Random, Path], None]] = [
    flip_bits,
    fill_range_with_zeros,
    truncate,
    append,
    delete,
    replace_by_folder,
    replace_by_broken_link,
    replace_by_foreign_content,
    swap,
]


def build_recipe(root: Path, cache: Path, *overrides: str) -> Recipe:
    return thaw.compose(
        "dataset=folder",
        f"dataset.root={root}",
        "dataset.image_size=32",
        "trainer.accelerator=cpu",
        "trainer.threads=1",
        f"data.cache_dir={cache}",
        *overrides,
    )


def extract(recipe: Recipe) -> tuple[np.ndarray, list[str]]:
    reporter = WarningReporter()
    values = extract_features(recipe, reporter=reporter).values
    return values, [warning for warning in reporter.warnings if "damaged" in warning]


def list_files(cache: Path) -> list[Path]:
    """Return the files of entries that `extract` uses; the measured times are used only if features are computed."""
    return [path for kind in ("decoded", "features", "measured") for path in sorted((cache / kind).rglob("*[!k]"))]


def damage_cache(rng: random.Random, cache: Path) -> set[Path]:
    """Damage up to three files and return their folders."""
    files = [path for path in list_files(cache) if path.is_file()]
    damaged_files = rng.sample(files, rng.randint(1, 3))
    for file in damaged_files:
        if file.is_file() and not file.is_symlink() and file.stat().st_size:
            rng.choice(DAMAGES)(rng, file)
    (cache / rng.choice(["decoded", "features"]) / "foreign.txt").write_text("not of thaw")
    return {file.parent for file in damaged_files}


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_drawn_damage_is_found_and_the_results_are_those_of_an_empty_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_image_folder(tmp_path / "data", {"train": 6, "test": 3}, classes=("ants", "bees"))
    expected, warnings = extract(build_recipe(root, tmp_path / "sound"))
    assert warnings == []
    assert extract(build_recipe(root, tmp_path / "sound"))[1] == [], "nothing is wrong with a cache as it was written"
    num_warnings = 0
    for seed in range(NUM_CACHES):
        cache = tmp_path / f"cache{seed}"
        shutil.copytree(tmp_path / "sound", cache)
        damaged_folders = damage_cache(random.Random(seed), cache)
        assert run_thaw(monkeypatch, "cache", f"data.cache_dir={cache}") == 0
        values, warnings = extract(build_recipe(root, cache))
        has_other_times = any("times" in warning for warning in warnings)  # another memory format rounds differently
        assert np.allclose(values, expected, rtol=1e-4, atol=1e-5) if has_other_times else (values == expected).all()
        for folder in damaged_folders:
            if folder.parent.name in ("decoded", "features"):
                assert any(str(folder) in warning for warning in warnings), (seed, folder)
        assert extract(build_recipe(root, cache))[1] == [], "the cache is sound again"
        assert all(entry.description != "unreadable" for entry in list_entries(cache) if entry.kind != "measured")
        num_warnings += len(warnings)
        shutil.rmtree(cache)
    assert num_warnings >= NUM_CACHES
