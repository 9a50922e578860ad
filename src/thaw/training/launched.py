"""What an outside launcher, torchrun or SLURM's srun, has started. Imports no torch."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass


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


def is_further() -> bool:
    """Whether another process opens the runs that this one trains."""
    here = launched()
    return here is not None and here.rank > 0
