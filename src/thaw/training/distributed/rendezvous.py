"""The processes that an outside launcher has started: the first runs the command, the others join each run it opens."""

from __future__ import annotations

import atexit
import functools
import itertools
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from thaw.config.validation import validate_recipe
from thaw.runs.run import Run
from thaw.system.launcher import detect_launcher

TIMEOUT = timedelta(hours=2)  # of a process that waits for another, which may be decoding a large data set
NEXT_RUN_TIMEOUT = timedelta(days=365)  # between the runs of a sweep
END_MESSAGE = "end"
_run_numbers = itertools.count()  # of the runs, the same in every process


def start_leader() -> None:
    """Of the first process: the others wait for the runs that it opens, and end with it."""
    _get_store()  # opened now: at the very end nothing can be imported any more
    atexit.register(_announce_end)


def _announce_end() -> None:
    """Lets the others go, also where no run was opened: --help, a wrong configuration."""
    _get_store().set(f"run{next(_run_numbers)}", END_MESSAGE)


@contextmanager
def announce_run(run: Run, backend: str) -> Iterator[None]:
    """Within, all processes of the launcher train `run`, which this one, the first, has opened."""
    run_number = next(_run_numbers)
    message = {"directory": str(run.directory), "recipe": run.recipe.to_dict(), "record": run.record}
    _get_store().set(f"run{run_number}", json.dumps(message))
    with _create_process_group(run_number, backend):
        try:
            yield
        except BaseException:
            _get_store().set(
                f"ended{run_number}", "1"
            )  # before the group falls apart, which the others take for a failure
            raise


@dataclass(frozen=True)
class AnnouncedRun:
    """A run of the first process, and its number."""

    run: Run
    run_number: int

    def is_over(self) -> bool:
        """Whether the first process has given it up, and told why."""
        return bool(_get_store().check([f"ended{self.run_number}"]))

    def join_process_group(self, backend: str) -> Any:
        return _create_process_group(self.run_number, backend)


def wait_for_run() -> AnnouncedRun | None:
    """Waits for the next run of the first process; None where that has ended."""
    launcher, run_number = detect_launcher(), next(_run_numbers)
    assert launcher is not None
    try:
        _get_store().wait([f"run{run_number}"], NEXT_RUN_TIMEOUT)
        message = _get_store().get(f"run{run_number}").decode()
    except RuntimeError:  # the first process holds the store
        return None
    return None if message == END_MESSAGE else AnnouncedRun(_build_run(json.loads(message), launcher.rank), run_number)


def _build_run(message: Mapping[str, Any], rank: int) -> Run:
    """Not read from the run directory, which may be on a disk of the first node."""
    return Run(Path(message["directory"]), validate_recipe(message["recipe"]), message["record"], rank)


@contextmanager
def _create_process_group(run_number: int, backend: str) -> Iterator[None]:
    """A process group for run `number` alone: what a failed one has left does not reach the next."""
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
    """What the processes write to each other."""
    from torch.distributed.rendezvous import rendezvous

    launcher = detect_launcher()
    assert launcher is not None
    if launcher.name == "srun":
        os.environ.update(_resolve_leader_address())
    store, _, _ = next(rendezvous("env://", launcher.rank, launcher.world_size, timeout=TIMEOUT))
    return store


def _resolve_leader_address() -> dict[str, str]:
    """Of the first node, and a port that jobs on it do not share; $MASTER_ADDR and $MASTER_PORT go before."""
    from pytorch_lightning.plugins.environments import SLURMEnvironment  # type: ignore[attr-defined]

    first_node = SLURMEnvironment.resolve_root_node_address(os.environ["SLURM_STEP_NODELIST"])
    port = 15000 + int(os.environ["SLURM_JOB_ID"]) % 10000
    return {
        "MASTER_ADDR": os.environ.get("MASTER_ADDR", first_node),
        "MASTER_PORT": os.environ.get("MASTER_PORT", str(port)),
    }
