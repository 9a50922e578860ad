"""Features in files: each format is read back by what users read it with."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from thaw.data.samples import Sample, Samples
from thaw.features.export import Export, build_writers, pool_features
from thaw.models.network import pool
from thaw.system.files import write_atomically

SAMPLES = (
    Sample("train/ants/0.png", 0, "train"),
    Sample("train/bees/ä, 1.png", 1, "train"),
    Sample("val/bees/\udce9.png", 1, "val"),  # a byte that is no UTF-8
    Sample("test/ants/2.png", 0, "test"),
)


def exported(folder: Path, name: str, features: np.ndarray) -> Path:
    samples = Samples(Path("/data"), ("ants", "bees"), SAMPLES, (), "0123456789abcdef")
    for file, write in build_writers(Export(features, samples, "resnet18", "layer3"), folder / name).items():
        write_atomically(file, write)
    return folder / name


@pytest.fixture
def features() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)


def test_an_npz_holds_all_that_is_known_and_nothing_pickled(tmp_path: Path, features: np.ndarray) -> None:
    with np.load(exported(tmp_path, "f.npz", features), allow_pickle=False) as read:
        assert np.array_equal(read["features"], features)
        assert read["features"].dtype == np.float32
        assert read["labels"].dtype == np.int64
        assert read["labels"].tolist() == [0, 1, 1, 0]
        assert read["paths"].tolist() == [
            "train/ants/0.png",
            "train/bees/ä, 1.png",
            "val/bees/\\xe9.png",
            "test/ants/2.png",
        ]
        assert read["splits"].tolist() == ["train", "train", "val", "test"]
        assert read["classes"].tolist() == ["ants", "bees"]
        assert [str(read[name]) for name in ("stage", "backbone", "fingerprint")] == [
            "layer3",
            "resnet18",
            "0123456789abcdef",
        ]


def test_an_npz_keeps_maps_whole(tmp_path: Path) -> None:
    maps = np.random.default_rng(0).normal(size=(4, 3, 2, 2)).astype(np.float32)
    with np.load(exported(tmp_path, "f.npz", maps), allow_pickle=False) as read:
        assert np.array_equal(read["features"], maps)


def test_an_npy_has_a_csv_of_the_same_order_beside_it(tmp_path: Path, features: np.ndarray) -> None:
    file = exported(tmp_path, "f.npy", features)
    assert np.array_equal(np.load(file, allow_pickle=False), features)
    with (tmp_path / "f.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["path"] for row in rows] == [sample.path for sample in SAMPLES]
    assert [row["class"] for row in rows] == ["ants", "bees", "bees", "ants"]
    assert [int(row["label"]) for row in rows] == [0, 1, 1, 0]
    assert [row["split"] for row in rows] == ["train", "train", "val", "test"]


def test_a_parquet_file_has_a_list_of_floats_a_row(tmp_path: Path, features: np.ndarray) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(exported(tmp_path, "f.parquet", features))
    assert np.array_equal(np.array(table["features"].to_pylist(), dtype=np.float32), features)
    assert str(table.schema.field("features").type) == "fixed_size_list<element: float>[6]"
    assert table["path"].to_pylist()[1:3] == ["train/bees/ä, 1.png", "val/bees/\\xe9.png"]
    assert table["label"].to_pylist() == [0, 1, 1, 0]
    assert table["class"].to_pylist() == ["ants", "bees", "bees", "ants"]
    assert table["split"].to_pylist() == ["train", "train", "val", "test"]
    assert json.loads(table.schema.metadata[b"classes"]) == ["ants", "bees"]
    assert table.schema.metadata[b"stage"] == b"layer3"


@pytest.mark.parametrize("shape", [(5, 8, 3, 3), (5, 3, 3, 8), (2500, 4, 2, 2)])
def test_maps_are_averaged_as_the_network_does_it_channels_first_or_last(shape: tuple[int, ...]) -> None:
    maps = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    assert np.array_equal(pool_features(maps), pool(torch.from_numpy(maps)).numpy())


def test_tokens_are_averaged_and_vectors_left_alone(features: np.ndarray) -> None:
    tokens = np.stack([features, 3 * features], axis=1)
    np.testing.assert_allclose(pool_features(tokens), 2 * features, rtol=1e-6)
    assert pool_features(features) is features


def test_a_file_that_fails_on_the_way_leaves_the_old_one_whole(tmp_path: Path) -> None:
    file = tmp_path / "f.npz"
    file.write_bytes(b"old")

    def breaks_off(stream: object) -> None:
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError):
        write_atomically(file, breaks_off)
    assert [path.name for path in tmp_path.iterdir()] == ["f.npz"]
    assert file.read_bytes() == b"old"
