"""Files, written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO


def write_atomically(file: Path, write: Callable[[BinaryIO], object]) -> None:
    """`file`, of what `write` puts into the stream that it is given; where it fails, `file` stays as it was."""
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
    # A file name that is not UTF-8 is written as the bytes it has.
    write_atomically(file, lambda stream: stream.write(text.encode("utf-8", "surrogateescape")))


def write_json(file: Path, content: Any) -> None:
    write_text(file, json.dumps(content, indent=2) + "\n")
