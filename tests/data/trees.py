"""Write folders of files that only have the names of images: readers do not decode them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from thaw.data.samples import Samples, load_folder_samples
from thaw.data.splits import SplitSettings

SPLIT_FOLDERS = {"train": "train", "val": "val", "test": "test"}
FRACTIONS = {"val": 0.2, "test": 0.2}


def write_files(root: Path, paths: Iterable[str]) -> Path:
    """Write files of different content; a path that ends with "/" becomes an empty folder."""
    for path in paths:
        if path.endswith("/"):
            (root / path).mkdir(parents=True, exist_ok=True)
        else:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(f"{root.name}/{path}".encode("utf-8", "surrogateescape"))
    return root


def write_classes(root: Path, *folders: str, count: int = 4, suffix: str = ".png") -> Path:
    """Write `count` files in each of `folders`."""
    return write_files(root, [f"{folder}/{number}{suffix}" for folder in folders for number in range(count)])


def load(root: Path, folders: Mapping[str, str | None] = SPLIT_FOLDERS, **settings: Any) -> Samples:
    return load_folder_samples(root, folders, SplitSettings(settings.pop("fractions", FRACTIONS)), **settings)


def list_labels(samples: Samples) -> dict[str, tuple[str, str]]:
    """Return path -> split and class of every sample."""
    return {sample.path: (sample.split, samples.classes[sample.label]) for sample in samples.samples}
