"""Read image files whole, but not without bounds, and identify them by the bytes that are decoded."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from stat import S_ISREG

from thaw.config.errors import Problem, UserError
from thaw.data.readers import escape_path

MAX_FILE_BYTES = 1 << 30  # photos take up to 0.1 GiB, scans of 20,000 x 20,000 pixels without compression 1.1 GiB
OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # a pipe would block until written

CHANGED_FIX = "start again, when nothing else writes to the images; thaw data verify hashes all files anew"


class BrokenImageError(Exception):
    """The file cannot be decoded; the message contains the reason."""


class ConcurrencyLimit:
    """Lets threads hold at most `limit` of something at once. More than the limit is held alone."""

    def __init__(self, limit: int) -> None:
        self._limit, self._total, self._condition = limit, 0, threading.Condition()

    @contextmanager
    def hold(self, amount: int) -> Iterator[None]:
        """Wait until `amount` more fits, and count it until the context ends."""
        with self._condition:
            self._condition.wait_for(lambda: self._total == 0 or self._total + amount <= self._limit)
            self._total += amount
        try:
            yield
        finally:
            with self._condition:
                self._total -= amount
                self._condition.notify_all()


FILE_BYTES_LIMIT = ConcurrencyLimit(MAX_FILE_BYTES)


@contextmanager
def read_image_file(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a file. All threads together hold at most MAX_FILE_BYTES.

    Raises:
        BrokenImageError: if the file is missing, empty, larger than MAX_FILE_BYTES, not a regular file, or cannot be
            read; with the reason of the system.
    """
    with ExitStack() as stack:
        with _raise_unreadable():
            stream = stack.enter_context(os.fdopen(os.open(path, OPEN_FLAGS), "rb"))
            size = _check_status(os.fstat(stream.fileno()))
        stack.enter_context(FILE_BYTES_LIMIT.hold(size))
        with _raise_unreadable():
            content = stream.read(size + 1)
        _check_length(content, size)
        yield content


@contextmanager
def read_indexed_file(root: Path, path: str, file_hash: str) -> Iterator[bytes]:
    """Yield the bytes of `root/path`, whose `hash_image_file` was `file_hash` when the data set was indexed.

    Raises:
        BrokenImageError: if the file could not be read then and cannot be read now.
        UserError: if it has other bytes now, or is gone.
    """
    with ExitStack() as stack:
        try:
            content = stack.enter_context(read_image_file(root / path))
        except BrokenImageError as error:
            if hash_reason(error) != file_hash:
                raise _build_changed_error(path, str(error)) from error
            raise
        if hashlib.sha256(content).hexdigest() != file_hash:
            raise _build_changed_error(path, "other bytes than before")
        yield content


def hash_image_file(path: Path) -> str:
    """Return the SHA-256 of the bytes of a file, 64 hex digits; of a file that cannot be read, that of the reason."""
    try:
        with read_image_file(path) as content:
            return hashlib.sha256(content).hexdigest()
    except BrokenImageError as error:
        return hash_reason(error)


def hash_reason(error: BrokenImageError) -> str:
    """Return what stands for the hash of a file that cannot be read, 64 hex digits."""
    return hashlib.sha256(f"unreadable: {error}".encode()).hexdigest()


@contextmanager
def _raise_unreadable() -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        raise BrokenImageError(getattr(error, "strerror", None) or str(error)) from error


def _check_status(status: os.stat_result) -> int:
    """Return the size of a regular file that is small enough."""
    if not S_ISREG(status.st_mode):
        raise BrokenImageError("it is not a regular file")
    if status.st_size > MAX_FILE_BYTES:
        size_gib, limit_gib = status.st_size / 2**30, MAX_FILE_BYTES / 2**30
        raise BrokenImageError(f"the file has {size_gib:,.1f} GiB, more than the limit of {limit_gib:g} GiB")
    return status.st_size


def _check_length(content: bytes, size: int) -> None:
    if len(content) != size:
        raise BrokenImageError("its size changes while it is read")
    if not size:
        raise BrokenImageError("the file is empty")


def _build_changed_error(path: str, got: str) -> UserError:
    problem = Problem(escape_path(path), got, "the bytes that were there when this command started", CHANGED_FIX)
    return UserError("an image was changed or removed while it was in use.", [problem])
