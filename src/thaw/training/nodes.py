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

from thaw.config.validation import validated
from thaw.training.launched import launched
from thaw.training.run import Run

PATIENCE = timedelta(hours=2)  # of a process that waits for another, which may be decoding a large data set
FOREVER = timedelta(days=365)  # between the runs of a sweep
END = "end"
_numbers = itertools.count()  # of the runs, the same in every process


def lead() -> None:
    """Of the first process: the others wait for the runs that it opens, and end with it."""
    _store()  # opened now: at the very end nothing can be imported any more
    atexit.register(_end)


def _end() -> None:
    """Lets the others go, also where no run was opened: --help, a wrong configuration."""
    _store().set(f"run{next(_numbers)}", END)


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
