"""Fewer train images a class, for learning how much more would help."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import TINY
from tests.images import image_folder
from thaw.cli.train import launch
from thaw.data.samples import UNUSED_SPLIT, Samples, limit_per_class, load_folder_samples


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    root = image_folder(tmp_path_factory.mktemp("data"), {"train": 7, "val": 2, "test": 3}, classes=("ants", "bees"))
    return load_folder_samples(root, {"train": "train", "val": "val", "test": "test"}, {}, 0)


def per_class(samples: Samples) -> list[int]:
    return np.bincount(samples.get_labels()[samples.get_positions("train")], minlength=len(samples.classes)).tolist()


def test_each_class_has_so_many_and_other_splits_stay(samples: Samples) -> None:
    fewer = limit_per_class(samples, 3, seed=0)
    assert per_class(fewer) == [3, 3]
    assert len(fewer.get_positions(UNUSED_SPLIT)) == 8
    assert [fewer.get_positions(split).tolist() for split in ("val", "test")] == [
        samples.get_positions(one).tolist() for one in ("val", "test")
    ]


def test_those_of_a_smaller_number_are_among_those_of_a_larger(samples: Samples) -> None:
    chosen = [set(limit_per_class(samples, count, seed=4).get_positions("train").tolist()) for count in (1, 2, 5, 7)]
    assert all(small < large for small, large in pairwise(chosen))


def test_another_seed_draws_others_and_the_fingerprint_tells(samples: Samples) -> None:
    first, again, other = (limit_per_class(samples, 2, seed) for seed in (0, 0, 1))
    assert first.fingerprint == again.fingerprint
    assert len({samples.fingerprint, first.fingerprint, other.fingerprint}) == 3


def test_a_class_with_fewer_images_keeps_them_all(samples: Samples) -> None:
    assert per_class(limit_per_class(samples, 100, seed=0)) == per_class(samples)


def test_a_sweep_over_numbers_computes_features_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["-m", *TINY, "sweep=images_per_class", "data.train_per_class=2,5", "strategy=fixed", "seed=0"]
    assert launch([*words, f"data.cache_dir={tmp_path / 'cache'}", f"output_dir={tmp_path}"]) == 0
    said = capsys.readouterr().out
    assert said.count("features of 72 images computed") == 1
    assert said.count("features of 72 images found in the cache") == 1
    assert "unused train images: 28" in said
