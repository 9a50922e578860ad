"""Damage files, and record the warnings that thaw gives about it."""

from __future__ import annotations

from pathlib import Path

from thaw.system.reporter import Reporter


class WarningReporter(Reporter):
    """Keeps all warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def flip_bit(file: Path) -> None:
    """Change one bit in the middle."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def truncate(file: Path) -> None:
    """Keep the first half."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def fill_with_zeros(file: Path) -> None:
    """Replace all bytes by zeros."""
    file.write_bytes(bytes(file.stat().st_size))


DAMAGES = (flip_bit, truncate, fill_with_zeros, Path.unlink)
