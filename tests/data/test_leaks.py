"""Test images whose content or group is also in train or val."""

from __future__ import annotations

from pathlib import Path

from thaw.data.leaks import find_leaks
from thaw.data.samples import Sample, Samples

SPLITS = ("train", "train", "val", "test", "test", "test")


def build_samples(hashes: str = "abcdef", groups: str | None = None) -> Samples:
    samples = tuple(
        Sample(f"{index}.png", index % 2, split, None if groups is None else groups[index])
        for index, split in enumerate(SPLITS)
    )
    return Samples(Path(), ("ants", "bees"), samples, {}, "", tuple(hashes))


def list_leaks(samples: Samples, near_copies: tuple[tuple[str, str], ...] = ()) -> dict[str, list[int]]:
    return {kind: positions.tolist() for kind, positions in find_leaks(samples, near_copies).items()}


def test_nothing_leaks() -> None:
    assert list_leaks(build_samples()) == {}
    assert list_leaks(build_samples("abcddf", "uvwxxy")) == {}  # equal files and a group within the test images


def test_equal_files_near_copies_and_groups_leak() -> None:
    assert list_leaks(build_samples("abcaec")) == {"copies": [3, 5]}
    assert list_leaks(build_samples(groups="uvwxvw")) == {"groups": [4, 5]}
    assert list_leaks(build_samples(), (("0.png", "4.png"), ("5.png", "2.png"), ("3.png", "5.png"))) == {
        "near_copies": [4, 5]
    }
