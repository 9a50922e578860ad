"""Detect the processes that an external launcher, torchrun or SLURM's srun, has started. Does not import torch."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class LauncherEnvironment:
    """The position of this process among the `devices` x `nodes` processes that the launcher `name` has started."""

    name: str
    devices: int
    nodes: int
    node_rank: int
    local_rank: int

    @property
    def world_size(self) -> int:
        """The number of processes on all nodes."""
        return self.devices * self.nodes

    @property
    def rank(self) -> int:
        """The index of this process, counted node by node, however the launcher numbers its processes."""
        return self.node_rank * self.devices + self.local_rank


@functools.cache  # Lightning removes WORLD_SIZE
def detect_launcher() -> LauncherEnvironment | None:
    """Return the launcher's environment, or None if thaw starts the processes itself, as for a single SLURM task."""
    environment = os.environ
    if "TORCHELASTIC_RUN_ID" in environment:
        world_size, devices, node_rank, local_rank = _read_integers(
            "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "LOCAL_RANK"
        )
        return LauncherEnvironment("torchrun", devices, world_size // devices, node_rank, local_rank)
    if int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1:  # set only by srun, not in a batch script
        world_size, nodes, node_rank, local_rank = _read_integers(
            "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES", "SLURM_NODEID", "SLURM_LOCALID"
        )
        return LauncherEnvironment("srun", world_size // nodes, nodes, node_rank, local_rank)
    return None


def _read_integers(*names: str) -> Iterator[int]:
    return (int(os.environ[name]) for name in names)


def is_worker() -> bool:
    """Return whether another process creates the runs that this one trains."""
    launcher = detect_launcher()
    return launcher is not None and launcher.rank > 0
