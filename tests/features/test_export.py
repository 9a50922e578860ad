"""Exported features, read back by the libraries that users read them with."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.tables import build_hashes, build_sample_table
from thaw.data.sample_table import Sample
from thaw.data.samples import Samples
from thaw.features.export import Export, build_writers, pool_features
from thaw.models.network import pool
from thaw.system.files import write_atomically

SAMPLES = (
    Sample("train/ants/0.png", 0, "train"),
    Sample("train/bees/ä, 1.png", 1, "train"),
    Sample("val/bees/\udce9.png", 1, "val"),  # a byte that is not UTF-8
    Sample("test/ants/2.png", 0, "test"),
)
DATA = Samples(Path("/data"), build_sample_table(("ants", "bees"), SAMPLES), {}, build_hashes("abcd"))


def write_features(folder: Path, name: str, features: np.ndarray) -> Path:
    """Write `features` and return the file."""
    for file, write in build_writers(Export(features, DATA, "resnet18", "layer3"), folder / name).items():
        write_atomically(file, write)
    return folder / name


@pytest.fixture
def features() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)


def test_an_npz_holds_features_and_samples_and_nothing_pickled(tmp_path: Path, features: np.ndarray) -> None:
    with np.load(write_features(tmp_path, "f.npz", features), allow_pickle=False) as arrays:
        assert np.array_equal(arrays["features"], features)
        assert arrays["features"].dtype == np.float32
        assert arrays["labels"].dtype == np.int64
        assert arrays["labels"].tolist() == [0, 1, 1, 0]
        assert arrays["paths"].tolist() == [
            "train/ants/0.png",
            "train/bees/ä, 1.png",
            "val/bees/\\xe9.png",
            "test/ants/2.png",
        ]
        assert arrays["splits"].tolist() == ["train", "train", "val", "test"]
        assert arrays["classes"].tolist() == ["ants", "bees"]
        assert [str(arrays[name]) for name in ("stage", "backbone", "fingerprint")] == [
            "layer3",
            "resnet18",
            DATA.fingerprint,
        ]


def test_an_npz_holds_maps_in_their_shape(tmp_path: Path) -> None:
    maps = np.random.default_rng(0).normal(size=(4, 3, 2, 2)).astype(np.float32)
    with np.load(write_features(tmp_path, "f.npz", maps), allow_pickle=False) as arrays:
        assert np.array_equal(arrays["features"], maps)


def test_an_npy_comes_with_a_csv_in_the_same_order(tmp_path: Path, features: np.ndarray) -> None:
    file = write_features(tmp_path, "f.npy", features)
    assert np.array_equal(np.load(file, allow_pickle=False), features)
    with (tmp_path / "f.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["path"] for row in rows] == [sample.path for sample in SAMPLES]
    assert [row["class"] for row in rows] == ["ants", "bees", "bees", "ants"]
    assert [int(row["label"]) for row in rows] == [0, 1, 1, 0]
    assert [row["split"] for row in rows] == ["train", "train", "val", "test"]


def test_a_parquet_file_has_a_list_of_floats_in_each_row(tmp_path: Path, features: np.ndarray) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(write_features(tmp_path, "f.parquet", features))
    assert np.array_equal(np.array(table["features"].to_pylist(), dtype=np.float32), features)
    assert str(table.schema.field("features").type) == "fixed_size_list<element: float>[6]"
    assert table["path"].to_pylist()[1:3] == ["train/bees/ä, 1.png", "val/bees/\\xe9.png"]
    assert table["label"].to_pylist() == [0, 1, 1, 0]
    assert table["class"].to_pylist() == ["ants", "bees", "bees", "ants"]
    assert table["split"].to_pylist() == ["train", "train", "val", "test"]
    assert json.loads(table.schema.metadata[b"classes"]) == ["ants", "bees"]
    assert table.schema.metadata[b"stage"] == b"layer3"


@pytest.mark.parametrize("shape", [(5, 8, 3, 3), (5, 3, 3, 8), (2500, 4, 2, 2)])
def test_maps_are_pooled_as_in_the_network_channels_first_or_last(shape: tuple[int, ...]) -> None:
    maps = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    assert np.array_equal(pool_features(maps), pool(torch.from_numpy(maps)).numpy())


def test_tokens_are_averaged_and_vectors_unchanged(features: np.ndarray) -> None:
    tokens = np.stack([features, 3 * features], axis=1)
    np.testing.assert_allclose(pool_features(tokens), 2 * features, rtol=1e-6)
    assert pool_features(features) is features


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "f.npz"
    file.write_bytes(b"old")

    def fail_to_write(stream: object) -> None:
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError):
        write_atomically(file, fail_to_write)
    assert [path.name for path in tmp_path.iterdir()] == ["f.npz"]
    assert file.read_bytes() == b"old"
