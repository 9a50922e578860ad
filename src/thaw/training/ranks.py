"""One run on several devices: a process each, all of which train the same run directory; the first alone writes.

The further processes are started here (or by an outside launcher: `nodes`) and not by Lightning, which would type the
command line again: in a sweep every process would then run the whole sweep.
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

from thaw.config.faults import UserFault

Value = TypeVar("Value")
OF_THE_GROUP = ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "NODE_RANK", "LOCAL_RANK")


@contextmanager
def started(directory: Path, count: int) -> Iterator[None]:
    """Within, `count` - 1 further processes train the run in `directory` along with this one, which is the first.

    Raises:
        RuntimeError: where one of them failed; its traceback stands before.
    """
    if count == 1:
        yield
        return
    before = {name: os.environ.get(name) for name in OF_THE_GROUP}
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(_free_port()), NODE_RANK="0", LOCAL_RANK="0")
    others = [_process(directory, rank) for rank in range(1, count)]
    try:
        yield
    except RuntimeError as error:
        failed = [rank for rank, process in enumerate(others, 1) if _status(process) not in (None, 0)]
        if failed:
            raise RuntimeError(f"the process of device {failed[0]} failed") from error
        raise
    finally:
        _end(others)
        _restore(before)


def _process(directory: Path, rank: int) -> subprocess.Popen[bytes]:
    package = str(Path(__file__).parents[2])
    path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "LOCAL_RANK": str(rank), "PYTHONPATH": path}
    return subprocess.Popen([sys.executable, "-m", "thaw.training.companion", str(directory)], env=environment)


def _status(process: subprocess.Popen[bytes]) -> int | None:
    try:
        return process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        return None


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    """Those that are done leave by themselves; those that wait for a process that is gone are ended."""
    if distributed.is_initialized():
        distributed.destroy_process_group()
    for process in processes:
        if _status(process) is None:
            process.send_signal(signal.SIGKILL)
            process.wait()


def _restore(environment: dict[str, str | None]) -> None:
    for name, value in environment.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def summed(values: Tensor) -> Tensor:
    """The sum over all processes."""
    if not distributed.is_initialized():
        return values
    total = values.clone()
    distributed.all_reduce(total)
    return total


def average_statistics(layers: list[nn.Module]) -> None:
    """Gives the running statistics of BatchNorm `layers`, which each process has gathered from its own images, their
    mean over the processes."""
    if distributed.is_initialized():
        for buffer in (one for layer in layers for one in layer.buffers() if one.is_floating_point()):
            distributed.all_reduce(buffer)
            buffer /= distributed.get_world_size()


def differing(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that are not the same bits in every process."""
    own = [_bits(value) for value in tensors.values()]
    others = gathered(torch.stack(own).tolist()) if own else []
    return [name for name, *sums in zip(tensors, *others, strict=True) if len(set(sums)) > 1]


def _bits(value: Tensor) -> Tensor:
    """int64: a sum of the bits, each word weighed by its place, so that exchanged values count as a difference."""
    words = value.detach().contiguous().view(-1).view(torch.uint8).to(torch.int64)
    places = torch.arange(1, len(words) + 1, device=words.device)
    return (words * places).sum()


def gathered(value: Value) -> list[Value]:
    """What every process has, in the order of the processes."""
    if not distributed.is_initialized():
        return [value]
    found: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, value)
    return found


def together(make: Callable[[], Value]) -> Value:
    """What `make` gives in this process; the UserFault of any process is raised in all."""
    fault: UserFault | None = None
    try:
        value = make()
    except UserFault as error:
        fault = error
    if found := [one for one in gathered(fault) if one]:
        raise found[0]
    return value


def of_the_first(value: Value) -> Value:
    """What the first process has."""
    if not distributed.is_initialized():
        return value
    held = [value]
    distributed.broadcast_object_list(held)
    return held[0]


def end_with_the_first_process() -> None:
    """Where the system can: a kill of the first process leaves none of the others behind."""
    if sys.platform == "linux":
        import ctypes

        parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
        ctypes.CDLL(None).prctl(parent_death_signal, signal.SIGKILL)


def backend(accelerator: str) -> str:
    return "nccl" if accelerator == "gpu" and torch.cuda.is_available() else "gloo"
