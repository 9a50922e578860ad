"""Processes that torchrun or SLURM's srun has started: the first runs the command, the others join each run it opens.

Imports torch only where a launcher is: `launch` asks here before a configuration is checked.
"""

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

from thaw.config.validation import validated
from thaw.training.run import Run

PATIENCE = timedelta(hours=2)  # of a process that waits for another, which may be decoding a large data set
FOREVER = timedelta(days=365)  # between the runs of a sweep
END = "end"
_numbers = itertools.count()  # of the runs, the same in every process


@dataclass(frozen=True)
class Launched:
    """This process among the `devices` x `nodes` that `launcher` has started."""

    launcher: str
    devices: int
    nodes: int
    node_rank: int
    local_rank: int

    @property
    def world(self) -> int:
        return self.devices * self.nodes

    @property
    def rank(self) -> int:
        """Counts through the nodes one after another, however the launcher numbers its processes."""
        return self.node_rank * self.devices + self.local_rank


@functools.cache  # Lightning takes WORLD_SIZE away
def launched() -> Launched | None:
    """None where thaw starts the processes of a run itself. One that is alone among SLURM's counts as none."""
    named = os.environ
    if "TORCHELASTIC_RUN_ID" in named:
        world, devices, node, local = _numbers_of("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "LOCAL_RANK")
        return Launched("torchrun", devices, world // devices, node, local)
    if int(named.get("SLURM_STEP_NUM_TASKS", 1)) > 1:  # set by srun alone, not in a batch script
        world, nodes, node, local = _numbers_of(
            "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES", "SLURM_NODEID", "SLURM_LOCALID"
        )
        return Launched("srun", world // nodes, nodes, node, local)
    return None


def _numbers_of(*names: str) -> Iterator[int]:
    return (int(os.environ[name]) for name in names)


def followed() -> int | None:
    """Of a further process: trains along with the first until that ends, and returns the exit status. None in the first
    process, and where there is only one."""
    here = launched()
    if here is None or here.world == 1:
        return None
    if here.rank == 0:
        _store()  # opened now: at the very end nothing can be imported any more
        atexit.register(_end)
        return None
    from thaw.training.companion import follow

    while (status := follow()) is not None:
        if status == 130:
            return status
    return 0


def _end() -> None:
    """Lets the others go, also where no run was opened: --help, a wrong configuration."""
    _store().set(f"run{next(_numbers)}", END)


def is_further() -> bool:
    """Whether another process opens the runs that this one trains."""
    here = launched()
    return here is not None and here.rank > 0


@contextmanager
def opened(run: Run, backend: str) -> Iterator[None]:
    """Within, all processes of the launcher train `run`, which this one, the first, has opened."""
    number = next(_numbers)
    content = {"directory": str(run.directory), "recipe": run.recipe.plain(), "record": run.record}
    _store().set(f"run{number}", json.dumps(content))
    with _group(number, backend):
        try:
            yield
        except BaseException:
            _store().set(f"ended{number}", "1")  # before the group falls apart, which the others take for a failure
            raise


@dataclass(frozen=True)
class Opened:
    """A run of the first process, and its number."""

    run: Run
    number: int

    def is_over(self) -> bool:
        """Whether the first process has given it up, and told why."""
        return bool(_store().check([f"ended{self.number}"]))

    def joined(self, backend: str) -> Any:
        return _group(self.number, backend)


def next_opened() -> Opened | None:
    """Waits for the next run of the first process; None where that has ended."""
    here, number = launched(), next(_numbers)
    assert here is not None
    try:
        _store().wait([f"run{number}"], FOREVER)
        text = _store().get(f"run{number}").decode()
    except RuntimeError:  # the first process holds the store
        return None
    return None if text == END else Opened(_run(json.loads(text), here.rank), number)


def _run(content: Mapping[str, Any], rank: int) -> Run:
    """Not read from the run directory, which may be on a disk of the first node."""
    return Run(Path(content["directory"]), validated(content["recipe"]), content["record"], rank)


@contextmanager
def _group(number: int, backend: str) -> Iterator[None]:
    """A process group for run `number` alone: what a failed one has left does not reach the next."""
    from torch import cuda, distributed
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]

    here = launched()
    assert here is not None
    os.environ.update(LOCAL_RANK=str(here.local_rank), NODE_RANK=str(here.node_rank))  # as Lightning reads them
    if backend == "nccl":
        cuda.set_device(here.local_rank)
    store = PrefixStore(f"group{number}", _store())
    distributed.init_process_group(backend, store=store, rank=here.rank, world_size=here.world, timeout=PATIENCE)
    try:
        yield
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


@functools.cache
def _store() -> Any:
    """What the processes write to each other."""
    from torch.distributed.rendezvous import rendezvous

    here = launched()
    assert here is not None
    if here.launcher == "srun":
        os.environ.update(_address())
    store, _, _ = next(rendezvous("env://", here.rank, here.world, timeout=PATIENCE))
    return store


def _address() -> dict[str, str]:
    """Of the first node, and a port that jobs on it do not share; $MASTER_ADDR and $MASTER_PORT go before."""
    from pytorch_lightning.plugins.environments import SLURMEnvironment  # type: ignore[attr-defined]

    first = SLURMEnvironment.resolve_root_node_address(os.environ["SLURM_STEP_NODELIST"])
    port = 15000 + int(os.environ["SLURM_JOB_ID"]) % 10000
    return {
        "MASTER_ADDR": os.environ.get("MASTER_ADDR", first),
        "MASTER_PORT": os.environ.get("MASTER_PORT", str(port)),
    }
