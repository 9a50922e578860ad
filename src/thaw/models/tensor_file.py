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
)  # all that zipfile raises for damaged files, NotImplementedError for a compression that does not exist
MAX_FIRST_BYTES = 512
REPEAT_DOWNLOAD_FIX = "download the file again, from the address of the file itself"
FLOAT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
PLAIN_DTYPES = (*FLOAT_DTYPES, torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


class TensorFileError(ValueError):
    """The file is damaged, or holds more than tensors and plain data; the message says which.

    `fix` says what to do where that is known; empty for the usual advice.
    """

    def __init__(self, reason: str, fix: str = "") -> None:
        super().__init__(reason)
        self.fix = fix


def load_tensor_file(file: Path) -> Any:
    """Load what torch.save or safetensors wrote into `file`, on the CPU; the content decides, not the suffix.

    The checksums of torch.save are verified: torch skips them. safetensors has none.

    Raises:
        TensorFileError: if the file is damaged, of another format, or holds pickled objects, which stay unexecuted.
    """
    with file.open("rb") as stream:
        first_bytes = stream.read(MAX_FIRST_BYTES)
    if error := identify_text(first_bytes):
        raise error
    if damage := find_damage(file):
        raise TensorFileError(damage)
    return _load_safetensors(file) if first_bytes[8:9] == b"{" else _load_torch_file(file)


def identify_text(first_bytes: bytes) -> TensorFileError | None:
    """Return the error for a file that begins as what a server or Git puts in the place of a large file."""
    text = first_bytes.lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n").replace(b"\0", b"").lower()
    if not text:
        return TensorFileError("the file is empty" if not first_bytes else "the file is blank", REPEAT_DOWNLOAD_FIX)
    if text.startswith(b"version https://git-lfs.github.com"):
        return TensorFileError("a Git LFS pointer, which stands in a repository for the file itself", "git lfs pull")
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body", b"<!--")):
        return TensorFileError("a web page: the download was not of the file itself", REPEAT_DOWNLOAD_FIX)
    if re.match(rb"[\[{]\s*[\"}\]]", text):
        return TensorFileError(
            "JSON text: the download was a server's answer, not the file itself", REPEAT_DOWNLOAD_FIX
        )
    return None


def _load_safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(file)
        return tensors
    except (SafetensorError, KeyError, RuntimeError, ValueError) as error:  # KeyError: a dtype that torch does not have
        raise TensorFileError(f"not a file of safetensors, or damaged: {error}") from error


def _load_torch_file(file: Path) -> Any:
    try:
        with warnings.catch_warnings(action="ignore"):  # advice to the file's author
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        _forget_unvalidated_tensors()
        raise TensorFileError(_describe_pickle(str(error))) from error
    except Exception as error:  # whatever a file of another program, or a hostile one, makes the unpickler raise
        _forget_unvalidated_tensors()
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise TensorFileError(f"not a file of torch.save: {reason}") from error


def _forget_unvalidated_tensors() -> None:
    """Clear torch's list of sparse tensors to validate: it keeps those of a file that failed for the next file."""
    get_tensors = getattr(torch._utils, "_get_sparse_tensors_to_validate", None)  # before, a list of the module
    tensors = get_tensors() if get_tensors else getattr(torch._utils, "_sparse_tensors_to_validate", [])
    tensors.clear()


def find_damage(file: Path) -> str:
    """Return what is damaged in `file` by the checksums of its archive; empty if nothing, or if it is no archive."""
    with file.open("rb") as stream:
        if stream.read(2) != b"PK":
            return ""  # torch's format before 1.6 has no checksums
    try:
        if not zipfile.is_zipfile(file):
            return "a truncated file: the end of its archive is missing"
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
