"""Convert the pickles of CIFAR-10 to an image folder, without running code that a pickle contains."""

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

from thaw.config.errors import Problem, UserError, format_names
from thaw.data.dataset_folder import build_dataset_folder
from thaw.system.cache_folder import compute_cache_key

META_FILE = "batches.meta"
BATCH_FILES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
IMAGE_SIZE = 32
UNPICKLING_ERRORS = (  # raised for bytes that are not a pickle of plain data
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


def build_cifar_folder(source: Path, cache_dir: Path) -> Path:
    """Return a folder SPLIT/CLASS/BATCH_NUMBER.png, 32 x 32 pixels, from the pickles in the extracted archive `source`.

    Raises:
        UserError: if a file is missing, damaged or contains anything but plain data, or if a class has no images.
    """
    names = [META_FILE, *BATCH_FILES["train"], *BATCH_FILES["test"]]
    if missing_files := [name for name in names if not (source / name).is_file()]:
        problem = Problem(
            str(source),
            f"no {format_names(missing_files)}",
            f"the files {format_names(names)}",
            "dataset.root=DIR of them",
        )
        raise UserError("the folder does not contain CIFAR-10.", [problem])
    file_states = [((source / name).stat().st_size, (source / name).stat().st_mtime_ns) for name in names]
    key = compute_cache_key(source=str(source), states=file_states)
    return build_dataset_folder(cache_dir / "datasets" / f"cifar-{key}", lambda folder: _convert(source, folder))


def _convert(source: Path, folder: Path) -> None:
    classes = _read_classes(source / META_FILE)
    used_labels = set[int]()
    for split, batches in BATCH_FILES.items():
        for name in classes:
            (folder / split / name).mkdir(parents=True)
        for batch in batches:
            images, labels = _read_batch(source / batch, len(classes))
            used_labels.update(labels)
            files = [folder / split / classes[label] / f"{batch}_{index:05}.png" for index, label in enumerate(labels)]
            _write_images(images, files)
    if unused_classes := [name for label, name in enumerate(classes) if label not in used_labels]:
        raise _cifar_error(source / META_FILE, f"classes without images: {format_names(unused_classes)}")


def _write_images(images: np.ndarray, files: Sequence[Path]) -> None:
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # 0.8 ms per image with 2 threads on 2 cores, 1.1 ms with 1
        for _ in pool.map(lambda image, file: Image.fromarray(image).save(file, compress_level=1), images, files):
            pass


def _read_classes(file: Path) -> list[str]:
    names = _read_pickle(file).get("label_names")
    if not isinstance(names, list) or not all(isinstance(name, str | bytes) for name in names):
        raise _cifar_error(file, "no label_names")
    classes = [_to_bytes(name).decode("utf-8", "replace") for name in names]
    if invalid_names := [name for name in classes if not re.fullmatch(r"[^./\\\0][^/\\\0]*", name)]:
        raise _cifar_error(file, f"class names that cannot be folder names: {invalid_names}")
    if len(set(classes)) < len(classes):
        raise _cifar_error(file, "a duplicate class name")
    return classes


def _read_batch(file: Path, num_classes: int) -> tuple[np.ndarray, list[int]]:
    """Return the pixels, uint8 [images, 32, 32, 3], and a label per image."""
    content = _read_pickle(file)
    pixels, labels = content.get("data"), content.get("labels")
    if not isinstance(pixels, _ArrayPlaceholder) or not isinstance(labels, list):
        raise _cifar_error(file, "no data and labels")
    planes = pixels.values
    if planes.shape != (len(labels), 3 * IMAGE_SIZE * IMAGE_SIZE):
        raise _cifar_error(file, f"data of shape {planes.shape} for {len(labels)} labels")
    if invalid_labels := [label for label in labels if type(label) is not int or not 0 <= label < num_classes]:
        raise _cifar_error(file, f"labels without a class: {format_names(map(repr, invalid_labels), 3)}")
    return np.ascontiguousarray(planes.reshape(-1, 3, IMAGE_SIZE, IMAGE_SIZE).transpose(0, 2, 3, 1)), labels


def _read_pickle(file: Path) -> Mapping[str, Any]:
    """Return the dictionary in `file`, with its keys as text."""
    try:
        content = _Unpickler(io.BytesIO(file.read_bytes()), encoding="bytes").load()
        return {_to_bytes(key).decode(): value for key, value in content.items()}
    except UNPICKLING_ERRORS as error:
        raise _cifar_error(file, str(error) or type(error).__name__) from error


def _to_bytes(value: str | bytes) -> bytes:
    """Return `value` as bytes: Python 2 wrote bytes, Python 3 either type."""
    return value.encode("latin1") if isinstance(value, str) else bytes(value)


class _ArrayPlaceholder:
    """Stand in for a NumPy array while unpickling, so that no NumPy code runs with values from a file."""

    def __init__(self, *_: object) -> None:
        self.values: np.ndarray = np.zeros(0, dtype=np.uint8)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, is_fortran_order, content = state
        if not isinstance(dtype, _DtypePlaceholder) or dtype.name not in (b"u1", b"uint8"):
            raise pickle.UnpicklingError("an array of a type other than uint8")
        flat_values = np.frombuffer(_to_bytes(content), dtype=np.uint8)
        self.values = flat_values.reshape(tuple(map(int, shape)), order="F" if is_fortran_order else "C")


class _DtypePlaceholder:
    """Stand in for a NumPy dtype while unpickling."""

    def __init__(self, name: str | bytes, *_: object) -> None:
        self.name = _to_bytes(name)

    def __setstate__(self, state: object) -> None:
        pass


def _encode_latin1(text: str, *_: object) -> bytes:
    """Return the bytes that Python 3 stores as text in the old pickle protocols."""
    return text.encode("latin1")


ALLOWED_GLOBALS: Mapping[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _ArrayPlaceholder,
    ("numpy", "dtype"): _DtypePlaceholder,
    ("numpy.core.multiarray", "_reconstruct"): _ArrayPlaceholder,
    ("numpy._core.multiarray", "_reconstruct"): _ArrayPlaceholder,
    ("_codecs", "encode"): _encode_latin1,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED_GLOBALS:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which is not plain data")
        return ALLOWED_GLOBALS[module, name]


def _cifar_error(file: Path, reason: str) -> UserError:
    problem = Problem(str(file), reason, fix="download the archive again: dataset.root=null")
    return UserError("the file is not part of CIFAR-10.", [problem])
