"""The processes that compute features together, and the collective calls that they make.

Every process makes the same collective calls in the same order. So a process never leaves a step early: an error is a
value that all processes gather, and then all of them raise.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from thaw.config.errors import UserError

Result = TypeVar("Result")


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of a run as this one sees them.

    Attributes:
        rank: the number of this process.
        world_size: the number of processes.
        all_gather: collective; takes the value of this process and returns those of all, by rank.
    """

    rank: int
    world_size: int
    all_gather: Callable[[Any], list[Any]]

    def run(self, action: Callable[[], Result]) -> Result:
        """Run `action` in every process and return its result in this one. Collective: one call.

        Raises:
            Exception: in every process if `action` failed in one, see `gather_results`.
        """
        result, error = _run_safely(action)
        self._raise_first(error, self.all_gather(_make_portable(error, self.rank)))
        return cast("Result", result)

    def gather_results(self, action: Callable[[], Result]) -> list[Result]:
        """Run `action` in every process and return the results of all, by rank. Collective: one call.

        Raises:
            UserError: in every process if `action` raised it in one.
            RuntimeError: if `action` failed in another process; the process that failed raises its own error.
        """
        result, error = _run_safely(action)
        outcomes = self.all_gather((result, _make_portable(error, self.rank)))
        self._raise_first(error, [portable_error for _, portable_error in outcomes])
        return [rank_result for rank_result, _ in outcomes]

    def ranks_sharing(self, folder: Path) -> list[int]:
        """Return the ranks of the processes that see the same `folder` as this one, itself included.

        On one machine these are all; on several it depends on their file systems. A process that cannot write there
        still takes part. Collective: two calls, none for a single process.
        """
        if self.world_size == 1:
            return [0]
        token_path = folder / f".seen-{secrets.token_hex(8)}"
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            token_path.touch()
        try:
            visible_ranks = [
                rank for rank, name in enumerate(self.all_gather(token_path.name)) if _is_visible(folder / name)
            ]
            first_visible_ranks = self.all_gather(visible_ranks[0] if visible_ranks else self.rank)
        finally:
            with contextlib.suppress(OSError):
                token_path.unlink(missing_ok=True)
        own_first_rank = first_visible_ranks[self.rank]
        return [rank for rank, first_rank in enumerate(first_visible_ranks) if first_rank == own_first_rank]

    def _raise_first(self, own_error: Exception | None, errors: Sequence[Exception | None]) -> None:
        """Raise the error of this process unless it is for the user: then all raise that of the lowest rank."""
        if own_error is not None and not isinstance(own_error, UserError):
            raise own_error
        for error in errors:
            if error is not None:
                raise error


def _run_safely(action: Callable[[], Result]) -> tuple[Result | None, Exception | None]:
    try:
        return action(), None
    except Exception as error:
        return None, error


def _make_portable(error: Exception | None, rank: int) -> Exception | None:
    """Return an error that can be sent to other processes, whose exceptions need not be picklable."""
    if error is None or isinstance(error, UserError):
        return error
    return RuntimeError(f"process {rank} failed: {type(error).__name__}: {error}")


def _is_visible(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


SINGLE_PROCESS = ProcessGroup(0, 1, lambda value: [value])
