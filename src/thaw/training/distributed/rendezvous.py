"""Processes that an outside launcher has started: the first runs the command, the others join each of its runs."""

from __future__ import annotations

import atexit
import functools
import itertools
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from thaw.config.validation import validate_recipe
from thaw.runs.run import Run
from thaw.system.launcher import detect_launcher

TIMEOUT = timedelta(hours=2)  # of waiting for another process, which may be decoding a large data set
NEXT_RUN_TIMEOUT = timedelta(days=365)  # between the runs of a sweep
END_MESSAGE = "end"
_run_numbers = itertools.count()  # the same in every process


def start_leader() -> None:
    """Let the other processes wait for the runs of this one, the first, and end with it."""
    _get_store()  # connects now: at exit nothing can be imported any more
    atexit.register(_announce_end)


def _announce_end() -> None:
    """Let the other processes end, also if there was no run: --help, a wrong configuration."""
    _get_store().set(f"run{next(_run_numbers)}", END_MESSAGE)


@contextmanager
def announce_run(run: Run, backend: str) -> Iterator[None]:
    """Let all processes of the launcher train `run` inside the context. This is the first process."""
    run_number = next(_run_numbers)
    message = {"directory": str(run.directory), "recipe": run.recipe.to_dict(), "record": run.record}
    _get_store().set(f"run{run_number}", json.dumps(message))
    with _create_process_group(run_number, backend):
        try:
            yield
        except BaseException:
            # Before the process group breaks, which the other processes would take for a failure.
            _get_store().set(f"ended{run_number}", "1")
            raise


@dataclass(frozen=True)
class AnnouncedRun:
    """A run that the first process has announced, and its number."""

    run: Run
    run_number: int

    def is_over(self) -> bool:
        """Return whether the run has failed in the first process, which has reported why."""
        return bool(_get_store().check([f"ended{self.run_number}"]))

    def join_process_group(self, backend: str) -> AbstractContextManager[None]:
        """Join the process group of the run for a context."""
        return _create_process_group(self.run_number, backend)


def wait_for_run() -> AnnouncedRun | None:
    """Wait for the next run of the first process; return None if that process has ended."""
    launcher, run_number = detect_launcher(), next(_run_numbers)
    assert launcher is not None
    try:
        _get_store().wait([f"run{run_number}"], NEXT_RUN_TIMEOUT)
        message = _get_store().get(f"run{run_number}").decode()
    except RuntimeError:  # the store ends with the first process
        return None
    return None if message == END_MESSAGE else AnnouncedRun(_build_run(json.loads(message), launcher.rank), run_number)


def _build_run(message: Mapping[str, Any], rank: int) -> Run:
    """Build the run from the message: its directory may be on a disk of the first node."""
    return Run(Path(message["directory"]), validate_recipe(message["recipe"]), message["record"], rank)


@contextmanager
def _create_process_group(run_number: int, backend: str) -> Iterator[None]:
    """Create a process group for one run, so that a failed run does not affect the next."""
    from torch import cuda, distributed
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]

    launcher = detect_launcher()
    assert launcher is not None
    os.environ.update(LOCAL_RANK=str(launcher.local_rank), NODE_RANK=str(launcher.node_rank))  # as Lightning reads them
    if backend == "nccl":
        cuda.set_device(launcher.local_rank)
    store = PrefixStore(f"group{run_number}", _get_store())
    distributed.init_process_group(
        backend, store=store, rank=launcher.rank, world_size=launcher.world_size, timeout=TIMEOUT
    )
    try:
        yield
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


@functools.cache
def _get_store() -> Any:
    """Return the key-value store of the processes."""
    from torch.distributed.rendezvous import rendezvous

    launcher = detect_launcher()
    assert launcher is not None
    if launcher.name == "srun":
        os.environ.update(_resolve_leader_address())
    store, _, _ = next(rendezvous("env://", launcher.rank, launcher.world_size, timeout=TIMEOUT))
    return store


def _resolve_leader_address() -> dict[str, str]:
    """Return the first node and a port that jobs on it do not share, unless $MASTER_ADDR and $MASTER_PORT are set."""
    from pytorch_lightning.plugins.environments import SLURMEnvironment  # type: ignore[attr-defined]

    first_node = SLURMEnvironment.resolve_root_node_address(os.environ["SLURM_STEP_NODELIST"])
    port = 15000 + int(os.environ["SLURM_JOB_ID"]) % 10000
    return {
        "MASTER_ADDR": os.environ.get("MASTER_ADDR", first_node),
        "MASTER_PORT": os.environ.get("MASTER_PORT", str(port)),
    }
