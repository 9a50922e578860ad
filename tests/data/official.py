"""The official archives of the data sets, in their own layouts, with a few small images in each."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import types
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tests.data.pictures import picture

CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BREEDS = ("affenpinscher", "beagle", "chow", "dingo")
Files = Mapping[str, bytes]


def image(seed: int, suffix: str = "png") -> bytes:
    stream = io.BytesIO()
    picture(36, 40, seed).save(stream, {"png": "PNG", "jpg": "JPEG"}[suffix])
    return stream.getvalue()


def class_images(folder: str, counts: Mapping[str, int], suffix: str = "jpg", first: int = 0) -> dict[str, bytes]:
    """FOLDER/CLASS/image_0001.SUFFIX and so on, no two alike."""
    names = [f"{folder}/{name}/image_{number:04}.{suffix}" for name, count in counts.items() for number in range(count)]
    return {name: image(first + seed, suffix) for seed, name in enumerate(names)}


def zipped(files: Files) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def tarred(files: Files) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def hotdog(train: int = 10, test: int = 4) -> bytes:
    kinds = ("hotdog", "not-hotdog")
    return zipped(
        class_images("hotdog/train", dict.fromkeys(kinds, train), "png")
        | class_images("hotdog/test", dict.fromkeys(kinds, test), "png", first=1000)
    )


def hymenoptera(train: int = 10, val: int = 4) -> bytes:
    kinds = ("ants", "bees")
    stray = {"hymenoptera_data/train/ants/imageNotFound.gif": b"GIF89a"}
    return zipped(
        class_images("hymenoptera_data/train", dict.fromkeys(kinds, train))
        | class_images("hymenoptera_data/val", dict.fromkeys(kinds, val), first=1000)
        | stray
    )


def dog_breeds(folder: str = "", each: int = 10, unlabelled: int = 3) -> dict[str, bytes]:
    """Files as Kaggle has them."""
    rows = [(f"{number:032x}", breed) for number, breed in enumerate(BREEDS * each)]
    labels = "id,breed\n" + "".join(f"{name},{breed}\n" for name, breed in rows)
    hidden = [f"{number:032x}" for number in range(9000, 9000 + unlabelled)]
    sample = f"id,{','.join(BREEDS)}\n" + "".join(f"{name},0.25,0.25,0.25,0.25\n" for name in hidden)
    files = {"labels.csv": labels.encode(), "sample_submission.csv": sample.encode()}
    files |= {f"train/{name}.jpg": image(seed, "jpg") for seed, (name, _) in enumerate(rows)}
    files |= {f"test/{name}.jpg": image(9000 + seed, "jpg") for seed, name in enumerate(hidden)}
    return {f"{folder}{name}": content for name, content in files.items()}


def caltech101(counts: Mapping[str, int]) -> bytes:
    """The zip with its archive of images, its archive of outlines, and what a Mac adds to both."""
    images = class_images("101_ObjectCategories", counts)
    images |= class_images("101_ObjectCategories", {"BACKGROUND_Google": 5}, first=5000)
    return zipped(
        {
            "caltech-101/101_ObjectCategories.tar.gz": tarred(images),
            "caltech-101/Annotations.tar": tarred({"Annotations/chair/annotation_0001.mat": b"MATLAB"}),
            "caltech-101/show_annotation.m": b"function show_annotation()",
            "__MACOSX/caltech-101/._101_ObjectCategories.tar.gz": b"\0\5\26\7",
        }
    )


class PythonTwo(pickle._Pickler):  # type: ignore[name-defined]
    """Writes as Python 2 and NumPy 1 did, who made the official files: bytes as strings, NumPy's old module names."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_string(self, value: str | bytes) -> None:
        content = value.encode() if isinstance(value, str) else value
        self.write(b"T" + struct.pack("<i", len(content)) + content)
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = save_string

    def save_global(self, obj: Any, name: str | None = None) -> None:
        if getattr(obj, "__name__", "") == "_reconstruct":
            self.write(b"cnumpy.core.multiarray\n_reconstruct\n")
            self.memoize(obj)
        else:
            super().save_global(obj, name)

    dispatch[types.FunctionType] = dispatch[types.BuiltinFunctionType] = save_global


def pickled(content: Any) -> bytes:
    stream = io.BytesIO()
    PythonTwo(stream, protocol=2).dump(content)
    return stream.getvalue()


def cifar_batch(name: str, labels: Sequence[int], seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (len(labels), 3072)).astype(np.uint8)
    return pickled(
        {
            b"batch_label": name.encode(),
            b"labels": list(labels),
            b"data": pixels,
            b"filenames": [f"image_{number}.png".encode() for number in range(len(labels))],
        }
    )


def cifar_files(each: int = 1) -> dict[str, bytes]:
    """All of `cifar-10-batches-py/`, with `each` images of each class in each of the six batches."""
    labels = list(range(10)) * each
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    meta = {b"num_cases_per_batch": 10000, b"label_names": [name.encode() for name in CIFAR_CLASSES], b"num_vis": 3072}
    files = {name: cifar_batch(name, labels, seed) for seed, name in enumerate(names)}
    files |= {"batches.meta": pickled(meta), "readme.html": b"<html>"}
    return {f"cifar-10-batches-py/{name}": content for name, content in files.items()}


def written(root: Path, files: Files) -> Path:
    """The files below `root`."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root
