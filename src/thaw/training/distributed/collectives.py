"""Processes that train one run together, one per device: starting them, and their collective calls.

Only the first process writes the run directory. thaw starts the others, unless an outside launcher has (`rendezvous`).
Lightning would run the command line again in each: in a sweep every process would then run the whole sweep.

Every process has to make the same collective calls in the same order.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from thaw.config.errors import UserError

Value = TypeVar("Value")
PROCESS_GROUP_VARIABLES = ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "NODE_RANK", "LOCAL_RANK")


@contextmanager
def spawn_workers(directory: Path, num_processes: int) -> Iterator[None]:
    """Start `num_processes` - 1 processes that train the run in `directory` together with this one, the first.

    They have ended when the context is left.

    Raises:
        RuntimeError: if one of them failed, after its traceback.
    """
    if num_processes == 1:
        yield
        return
    previous_environment = {name: os.environ.get(name) for name in PROCESS_GROUP_VARIABLES}
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(_find_free_port()), NODE_RANK="0", LOCAL_RANK="0")
    workers = [_spawn_worker(directory, rank) for rank in range(1, num_processes)]
    try:
        yield
    except RuntimeError as error:
        exit_codes = {rank: _wait_for_exit_code(process) for rank, process in enumerate(workers, 1)}
        if failed_ranks := [rank for rank, exit_code in exit_codes.items() if exit_code not in (None, 0)]:
            raise RuntimeError(f"the process of device {failed_ranks[0]} failed") from error
        raise
    finally:
        _stop_workers(workers)
        _restore_environment(previous_environment)


def _spawn_worker(directory: Path, rank: int) -> subprocess.Popen[bytes]:
    source_root = str(Path(__file__).parents[3])
    python_path = os.pathsep.join([source_root, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "LOCAL_RANK": str(rank), "PYTHONPATH": python_path}
    return subprocess.Popen([sys.executable, "-m", "thaw.training.worker", str(directory)], env=environment)


def _wait_for_exit_code(process: subprocess.Popen[bytes]) -> int | None:
    try:
        return process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        return None


def _stop_workers(processes: list[subprocess.Popen[bytes]]) -> None:
    """Wait for the processes to end, and kill those that wait for a process that has ended."""
    if distributed.is_initialized():
        distributed.destroy_process_group()
    for process in processes:
        if _wait_for_exit_code(process) is None:
            process.send_signal(signal.SIGKILL)
            process.wait()


def _restore_environment(environment: dict[str, str | None]) -> None:
    for name, value in environment.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


def _find_free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def all_reduce_sum(values: Tensor) -> Tensor:
    """Return the sum over all processes."""
    if not distributed.is_initialized():
        return values
    total = values.clone()
    distributed.all_reduce(total)
    return total


def average_statistics(layers: list[nn.Module]) -> None:
    """Set the running statistics of BatchNorm `layers` to their mean over the processes, which saw other images."""
    if not distributed.is_initialized():
        return
    for buffer in (buffer for layer in layers for buffer in layer.buffers() if buffer.is_floating_point()):
        distributed.all_reduce(buffer)
        buffer /= distributed.get_world_size()


def mismatched_tensors(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors whose bits differ between processes."""
    own_checksums = [_compute_checksum(value) for value in tensors.values()]
    checksums_by_rank = all_gather_object(torch.stack(own_checksums).tolist()) if own_checksums else []
    return [name for name, *checksums in zip(tensors, *checksums_by_rank, strict=True) if len(set(checksums)) > 1]


def _compute_checksum(value: Tensor) -> Tensor:
    """Sum the bytes, weighted by position, as int64: swapped values count as a difference."""
    byte_values = value.detach().contiguous().view(-1).view(torch.uint8).to(torch.int64)
    position_weights = torch.arange(1, len(byte_values) + 1, device=byte_values.device)
    return (byte_values * position_weights).sum()


def all_gather_object(value: Value) -> list[Value]:
    """Return the values of all processes, by rank."""
    if not distributed.is_initialized():
        return [value]
    object_list: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(object_list, value)
    return object_list


def raise_on_all_ranks(function: Callable[[], Value]) -> Value:
    """Call `function` in every process. A UserError of any process is raised in all of them."""
    own_error: UserError | None = None
    try:
        value = function()
    except UserError as error:
        own_error = error
    if errors := [rank_error for rank_error in all_gather_object(own_error) if rank_error]:
        raise errors[0]
    return value


def broadcast(value: Value) -> Value:
    """Return the value of the first process."""
    if not distributed.is_initialized():
        return value
    object_list = [value]
    distributed.broadcast_object_list(object_list)
    return object_list[0]


def exit_with_parent() -> None:
    """Let the system kill this process when its parent ends, however it ends. Linux only."""
    if sys.platform == "linux":
        import ctypes

        parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
        ctypes.CDLL(None).prctl(parent_death_signal, signal.SIGKILL)


def select_backend(accelerator: str) -> str:
    """Return torch's backend for collective calls: `nccl` on CUDA GPUs, else `gloo`."""
    return "nccl" if accelerator == "gpu" and torch.cuda.is_available() else "gloo"
