"""The number of train images per class can be limited."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import TINY
from tests.images import write_image_folder
from thaw.cli.train import launch
from thaw.data.sample_table import UNUSED_SPLIT
from thaw.data.samples import Samples, limit_per_class, load_folder_samples
from thaw.data.splits import SplitSettings


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    root = write_image_folder(
        tmp_path_factory.mktemp("data"), {"train": 7, "val": 2, "test": 3}, classes=("ants", "bees")
    )
    return load_folder_samples(root, {"train": "train", "val": "val", "test": "test"}, SplitSettings())


def count_per_class(samples: Samples) -> list[int]:
    return np.bincount(samples.get_labels()[samples.get_positions("train")], minlength=len(samples.classes)).tolist()


def test_each_class_is_limited_and_other_splits_stay(samples: Samples) -> None:
    limited_samples = limit_per_class(samples, 3, seed=0)
    assert count_per_class(limited_samples) == [3, 3]
    assert len(limited_samples.get_positions(UNUSED_SPLIT)) == 8
    assert [limited_samples.get_positions(split).tolist() for split in ("val", "test")] == [
        samples.get_positions(split).tolist() for split in ("val", "test")
    ]


def test_a_smaller_limit_selects_a_subset(samples: Samples) -> None:
    position_sets = [
        set(limit_per_class(samples, count, seed=4).get_positions("train").tolist()) for count in (1, 2, 5, 7)
    ]
    assert all(small < large for small, large in pairwise(position_sets))


def test_another_seed_selects_others_and_changes_the_fingerprint(samples: Samples) -> None:
    first, again, other = (limit_per_class(samples, 2, seed) for seed in (0, 0, 1))
    assert first.fingerprint == again.fingerprint
    assert len({samples.fingerprint, first.fingerprint, other.fingerprint}) == 3


def test_a_class_with_fewer_images_keeps_all(samples: Samples) -> None:
    assert count_per_class(limit_per_class(samples, 100, seed=0)) == count_per_class(samples)


@pytest.mark.long
def test_a_sweep_over_limits_computes_features_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["-m", *TINY, "sweep=images_per_class", "data.train_per_class=2,5", "strategy=fixed", "seed=0"]
    assert launch([*arguments, f"data.cache_dir={tmp_path / 'cache'}", f"output_dir={tmp_path}"]) == 0
    output = capsys.readouterr().out
    assert output.count("features of 72 images computed") == 1
    assert output.count("features of 72 images found in the cache") == 1
    assert "unused train images: 28" in output
