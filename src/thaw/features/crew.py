"""The processes that compute features together."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Crew:
    """This process is number `rank` of `size`. `gather(value)` gives what every process has given, in their order; all
    have to ask together."""

    rank: int
    size: int
    gather: Callable[[Any], list[Any]]

    def sharing(self, folder: Path) -> list[int]:
        """The ranks of those that see the same `folder` as this process, this one among them: on one machine all,
        elsewhere as the file system has it."""
        if self.size == 1:
            return [0]
        folder.mkdir(parents=True, exist_ok=True)
        token = folder / f".seen-{secrets.token_hex(8)}"
        token.touch()
        try:
            seen = [(folder / name).exists() for name in self.gather(token.name)]
            firsts = self.gather(seen.index(True))
        finally:
            token.unlink(missing_ok=True)
        return [rank for rank, first in enumerate(firsts) if first == firsts[self.rank]]


ALONE = Crew(0, 1, lambda value: [value])
