"""Make the official archives of the data sets, in their layouts, with a few small images each."""

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

from tests.data.pictures import make_image

CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BREEDS = ("affenpinscher", "beagle", "chow", "dingo")
Files = Mapping[str, bytes]


def encode_image(seed: int, suffix: str = "png") -> bytes:
    stream = io.BytesIO()
    make_image(36, 40, seed).save(stream, {"png": "PNG", "jpg": "JPEG"}[suffix])
    return stream.getvalue()


def make_class_images(folder: str, counts: Mapping[str, int], suffix: str = "jpg", first: int = 0) -> dict[str, bytes]:
    """Make FOLDER/CLASS/image_0001.SUFFIX and so on, all different."""
    names = [f"{folder}/{name}/image_{number:04}.{suffix}" for name, count in counts.items() for number in range(count)]
    return {name: encode_image(first + seed, suffix) for seed, name in enumerate(names)}


def make_zip(files: Files) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def make_tar(files: Files) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def make_hotdog_zip(train: int = 10, test: int = 4) -> bytes:
    classes = ("hotdog", "not-hotdog")
    return make_zip(
        make_class_images("hotdog/train", dict.fromkeys(classes, train), "png")
        | make_class_images("hotdog/test", dict.fromkeys(classes, test), "png", first=1000)
    )


def make_hymenoptera_zip(train: int = 10, val: int = 4) -> bytes:
    classes = ("ants", "bees")
    stray_file = {"hymenoptera_data/train/ants/imageNotFound.gif": b"GIF89a"}
    return make_zip(
        make_class_images("hymenoptera_data/train", dict.fromkeys(classes, train))
        | make_class_images("hymenoptera_data/val", dict.fromkeys(classes, val), first=1000)
        | stray_file
    )


def make_dog_breeds_files(folder: str = "", each: int = 10, unlabelled: int = 3) -> dict[str, bytes]:
    """Make the files of Kaggle's data set, with `each` images per breed."""
    rows = [(f"{number:032x}", breed) for number, breed in enumerate(BREEDS * each)]
    labels = "id,breed\n" + "".join(f"{name},{breed}\n" for name, breed in rows)
    unlabelled_names = [f"{number:032x}" for number in range(9000, 9000 + unlabelled)]
    sample = f"id,{','.join(BREEDS)}\n" + "".join(f"{name},0.25,0.25,0.25,0.25\n" for name in unlabelled_names)
    files = {"labels.csv": labels.encode(), "sample_submission.csv": sample.encode()}
    files |= {f"train/{name}.jpg": encode_image(seed, "jpg") for seed, (name, _) in enumerate(rows)}
    files |= {f"test/{name}.jpg": encode_image(9000 + seed, "jpg") for seed, name in enumerate(unlabelled_names)}
    return {f"{folder}{name}": content for name, content in files.items()}


def make_caltech101_zip(counts: Mapping[str, int]) -> bytes:
    """Make the zip with the archive of images, the archive of outlines, and a file that macOS adds."""
    images = make_class_images("101_ObjectCategories", counts)
    images |= make_class_images("101_ObjectCategories", {"BACKGROUND_Google": 5}, first=5000)
    return make_zip(
        {
            "caltech-101/101_ObjectCategories.tar.gz": make_tar(images),
            "caltech-101/Annotations.tar": make_tar({"Annotations/chair/annotation_0001.mat": b"MATLAB"}),
            "caltech-101/show_annotation.m": b"function show_annotation()",
            "__MACOSX/caltech-101/._101_ObjectCategories.tar.gz": b"\0\5\26\7",
        }
    )


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """Write pickles as Python 2 and NumPy 1 did for the official files: bytes as strings, NumPy's old module names."""

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


def dump_python2_pickle(content: Any) -> bytes:
    stream = io.BytesIO()
    Python2Pickler(stream, protocol=2).dump(content)
    return stream.getvalue()


def make_cifar_batch(name: str, labels: Sequence[int], seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (len(labels), 3072)).astype(np.uint8)
    return dump_python2_pickle(
        {
            b"batch_label": name.encode(),
            b"labels": list(labels),
            b"data": pixels,
            b"filenames": [f"image_{number}.png".encode() for number in range(len(labels))],
        }
    )


def make_cifar_files(each: int = 1) -> dict[str, bytes]:
    """Make `cifar-10-batches-py/`, with `each` images of each class in each of the six batches."""
    labels = list(range(10)) * each
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    meta = {b"num_cases_per_batch": 10000, b"label_names": [name.encode() for name in CIFAR_CLASSES], b"num_vis": 3072}
    files = {name: make_cifar_batch(name, labels, seed) for seed, name in enumerate(names)}
    files |= {"batches.meta": dump_python2_pickle(meta), "readme.html": b"<html>"}
    return {f"cifar-10-batches-py/{name}": content for name, content in files.items()}


def write_files(root: Path, files: Files) -> Path:
    """Write `files` below `root` and return it."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root
