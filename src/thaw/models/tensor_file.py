"""Load tensor files without executing anything in them, and find damage that torch does not look for."""

from __future__ import annotations

import lzma
import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ZIP_ERRORS = (
    *(zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, ValueError, OverflowError),
    *(struct.error, zlib.error, lzma.LZMAError),
)


FLOAT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
PLAIN_DTYPES = (*FLOAT_DTYPES, torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


class TensorFileError(ValueError):
    """The file is damaged, or holds more than tensors and plain data; the message says which."""


def load_tensor_file(file: Path) -> Any:
    """Load what torch.save wrote into `file`, on the CPU. The checksums of the file are verified: torch skips them.

    Raises:
        TensorFileError: if the file is damaged, is not of torch.save, or holds pickled objects, which stay unexecuted.
    """
    if damage := find_damage(file):
        raise TensorFileError(damage)
    try:
        with warnings.catch_warnings(action="ignore"):  # advice to the file's author
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise TensorFileError(_describe_pickle(str(error))) from error
    except Exception as error:  # whatever a file of another program, or a hostile one, makes the unpickler raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise TensorFileError(f"not a file of torch.save: {reason}") from error


def find_damage(file: Path) -> str:
    """Return what is damaged in `file` by the checksums of its archive; empty if nothing, or if it is no archive."""
    with file.open("rb") as stream:
        if stream.read(2) != b"PK":
            return ""  # torch's format before 1.6 has no checksums
    if not zipfile.is_zipfile(file):
        return "a truncated file: the end of its archive is missing"
    try:
        with zipfile.ZipFile(file) as archive:
            damaged_record = archive.testzip()
    except ZIP_ERRORS as error:
        return f"the file is damaged: {error}"
    return f"the file is damaged: the checksum of {damaged_record} differs" if damaged_record else ""


def find_non_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors that hold NaN or infinite values."""
    return [
        name
        for name, tensor in tensors.items()
        if not describe_kind(tensor) and tensor.is_floating_point() and not torch.isfinite(tensor).all()
    ]


def find_unusable(tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """Yield "NAME (a sparse tensor)" for each tensor that is not a plain array of numbers."""
    return (f"{name} ({kind})" for name, tensor in tensors.items() if (kind := describe_kind(tensor)))


def describe_kind(tensor: Tensor) -> str:
    """Return the kind of a tensor that is not a plain array of real numbers; empty for one that is."""
    if tensor.is_meta:
        return "a meta tensor, without values"
    if tensor.is_nested or tensor.layout != torch.strided:
        return f"a {'nested' if tensor.is_nested else 'sparse'} tensor"
    return "" if tensor.dtype in PLAIN_DTYPES else f"{'quantized ' * tensor.is_quantized}{tensor.dtype}"


def _describe_pickle(message: str) -> str:
    global_match = re.search(r"GLOBAL ([\w.]+)", message)
    if not (global_match or "Unsupported" in message or "weights_only" in message.lower()):
        return "not a file of torch.save"
    name = f" ({global_match[1]})" if global_match else ""
    return f"it holds pickled objects{name}, which must be executed to load them"
