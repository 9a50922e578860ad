"""Write files completely or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO


def write_atomically(file: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write `file` by `write(stream)`; if that fails, the file stays unchanged."""
    partial_file = file.with_name(file.name + ".partial")
    try:
        with partial_file.open("wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        partial_file.replace(file)
    finally:
        partial_file.unlink(missing_ok=True)


def write_text(file: Path, text: str) -> None:
    """Write `text` as UTF-8; file names in it that are not UTF-8 keep their bytes."""
    write_atomically(file, lambda stream: stream.write(text.encode("utf-8", "surrogateescape")))


def write_json(file: Path, content: Any) -> None:
    """Write `content` as JSON with an indent of 2."""
    write_text(file, json.dumps(content, indent=2) + "\n")
