"""CIFAR-10's pickles -> an image folder. No code in a pickle is run."""

from __future__ import annotations

import io
import os
import pickle
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from thaw.config.faults import Fault, UserFault, listing
from thaw.data.cache import complete_folder, key_of

META = "batches.meta"
BATCHES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
SIDE = 32
MALFORMED = (  # what unpickling makes of bytes that are no pickle of such data
    pickle.UnpicklingError,
    EOFError,
    ArithmeticError,
    AttributeError,
    ImportError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)


def cifar_folder(source: Path, cache: Path) -> Path:
    """A folder SPLIT/CLASS/BATCH_NUMBER.png, 32 x 32 pixels, of the pickles in `source`, the unpacked archive.

    Raises:
        UserFault: for a missing or damaged file, one that asks for anything but plain data, or a class without images.
    """
    names = [META, *BATCHES["train"], *BATCHES["test"]]
    if missing := [name for name in names if not (source / name).is_file()]:
        fault = Fault(str(source), f"no {listing(missing)}", f"the files {listing(names)}", "dataset.root=DIR of them")
        raise UserFault("the folder does not hold CIFAR-10.", [fault])
    states = [((source / name).stat().st_size, (source / name).stat().st_mtime_ns) for name in names]
    key = key_of(source=str(source), states=states)
    return complete_folder(cache / "datasets" / f"cifar-{key}", lambda folder: _convert(source, folder))


def _convert(source: Path, folder: Path) -> None:
    classes = _classes(source / META)
    used = set[int]()
    for split, batches in BATCHES.items():
        for name in classes:
            (folder / split / name).mkdir(parents=True)
        for batch in batches:
            images, labels = _batch(source / batch, len(classes))
            used.update(labels)
            files = [folder / split / classes[label] / f"{batch}_{at:05}.png" for at, label in enumerate(labels)]
            _write(images, files)
    if unused := [name for label, name in enumerate(classes) if label not in used]:
        raise _refused(source / META, f"classes without an image: {listing(unused)}")


def _write(images: np.ndarray, files: Sequence[Path]) -> None:
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # 2 threads on 2 cores: 0.8 ms an image, 1: 1.1
        for _ in pool.map(lambda image, file: Image.fromarray(image).save(file, compress_level=1), images, files):
            pass


def _classes(file: Path) -> list[str]:
    names = _plain(file).get("label_names")
    if not isinstance(names, list) or not all(isinstance(name, str | bytes) for name in names):
        raise _refused(file, "no label_names")
    classes = [_bytes(name).decode("utf-8", "replace") for name in names]
    if odd := [name for name in classes if not re.fullmatch(r"[^./\\\0][^/\\\0]*", name)]:
        raise _refused(file, f"class names that cannot be a folder's: {odd}")
    if len(set(classes)) < len(classes):
        raise _refused(file, "a class name that stands there twice")
    return classes


def _batch(file: Path, classes: int) -> tuple[np.ndarray, list[int]]:
    """uint8 [images, 32, 32, 3] and a label each."""
    content = _plain(file)
    pixels, labels = content.get("data"), content.get("labels")
    if not isinstance(pixels, _Array) or not isinstance(labels, list):
        raise _refused(file, "no data and labels")
    planes = pixels.values
    if planes.shape != (len(labels), 3 * SIDE * SIDE):
        raise _refused(file, f"data of shape {planes.shape} for {len(labels)} labels")
    if wrong := [label for label in labels if type(label) is not int or not 0 <= label < classes]:
        raise _refused(file, f"labels that no class has: {listing(map(repr, wrong), 3)}")
    return np.ascontiguousarray(planes.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)), labels


def _plain(file: Path) -> Mapping[str, Any]:
    """The dictionary in `file`, its keys as text."""
    try:
        content = _Unpickler(io.BytesIO(file.read_bytes()), encoding="bytes").load()
        return {_bytes(key).decode(): value for key, value in content.items()}
    except MALFORMED as error:
        raise _refused(file, str(error) or type(error).__name__) from error


def _bytes(value: str | bytes) -> bytes:
    """Python 2 wrote bytes, Python 3 either."""
    return value.encode("latin1") if isinstance(value, str) else bytes(value)


class _Array:
    """Takes the place of a NumPy array while unpickling, so that nothing of NumPy is called with a file's values."""

    def __init__(self, *_: object) -> None:
        self.values: np.ndarray = np.zeros(0, dtype=np.uint8)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, by_column, content = state
        if not isinstance(kind, _Kind) or kind.name not in (b"u1", b"uint8"):
            raise pickle.UnpicklingError("an array of another type than uint8")
        flat = np.frombuffer(_bytes(content), dtype=np.uint8)
        self.values = flat.reshape(tuple(map(int, shape)), order="F" if by_column else "C")


class _Kind:
    """Takes the place of a NumPy dtype."""

    def __init__(self, name: str | bytes, *_: object) -> None:
        self.name = _bytes(name)

    def __setstate__(self, state: object) -> None:
        pass


def _encoded(text: str, *_: object) -> bytes:
    """Python 3 writes bytes as text to be encoded, in the old protocols."""
    return text.encode("latin1")


ADMITTED: Mapping[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Kind,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("_codecs", "encode"): _encoded,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ADMITTED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, and holds more than data")
        return ADMITTED[module, name]


def _refused(file: Path, reason: str) -> UserFault:
    fault = Fault(str(file), reason, fix="fetch the archive again: dataset.root=null")
    return UserFault("the file is not one of CIFAR-10.", [fault])
