"""The processes that compute features together."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ProcessGroup:
    """This process is number `rank` of `size`. `gather(value)` gives what every process has given, in their order; all
    have to ask together."""

    rank: int
    world_size: int
    all_gather: Callable[[Any], list[Any]]

    def ranks_sharing(self, folder: Path) -> list[int]:
        """The ranks of those that see the same `folder` as this process, this one among them: on one machine all,
        elsewhere as the file system has it."""
        if self.world_size == 1:
            return [0]
        folder.mkdir(parents=True, exist_ok=True)
        token_path = folder / f".seen-{secrets.token_hex(8)}"
        token_path.touch()
        try:
            is_visible = [(folder / name).exists() for name in self.all_gather(token_path.name)]
            first_visible_ranks = self.all_gather(is_visible.index(True))
        finally:
            token_path.unlink(missing_ok=True)
        return [
            rank
            for rank, first_visible_rank in enumerate(first_visible_ranks)
            if first_visible_rank == first_visible_ranks[self.rank]
        ]


SINGLE_PROCESS = ProcessGroup(0, 1, lambda value: [value])
