"""What a training sets for its whole process: all of it anew for each job, so nothing leaks through a sweep."""

from __future__ import annotations

import atexit
import ctypes
import functools
import gc
import hashlib
import os
import random
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import numpy as np
import torch

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM. No KeyboardInterrupt: Lightning would answer that one by leaving the process."""


def configure_process(seed: int, deterministic: bool, threads: int | None) -> None:
    """Seeds, threads, determinism and memory, as functions of the arguments alone."""
    keep_freed_memory()
    freeze_gc()
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # without it cuBLAS sums in any order
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    deterministic_module: Any = torch.utils.deterministic
    deterministic_module.fill_uninitialized_memory = (
        False  # it guards against bugs at the cost of a pass over each new tensor
    )
    torch.backends.cudnn.benchmark = not deterministic
    torch.set_num_threads(threads or available_cpus())
    torch.set_float32_matmul_precision("high")
    if not torch.cuda.is_available():  # Lightning lets torch ask the driver for a GPU in every optimizer step: 91 us
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"  # 3 us
    seed_everything(seed)


def keep_freed_memory() -> None:
    """Lets glibc keep what a step frees. By default it hands tensors back to the kernel and faults them in again:
    28 % of a fine-tuning step on 2 cores (1067 -> 776 ms, EfficientNet-Lite0, batch 64 at 96 px)."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):  # musl has none
            libc.mallopt(M_MMAP_MAX, 0)
            libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


@functools.cache  # once a process, so that no job of a sweep leaves anything there
def freeze_gc() -> None:
    """Takes what has been imported out of the search for garbage: torch, Lightning and timm are a million objects, and
    looking through them once 0.4 s, a sixth of a run over cached features."""
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)  # else triton's bindings complain of leaks when Python ends


def available_cpus() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def seed_everything(*parts: int | str) -> None:
    """Sets every generator from `parts`."""
    seed = int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def raise_on_interrupt() -> Iterator[None]:
    """Within, Ctrl-C and SIGTERM raise Interrupted; behind it, what held before holds again."""

    def raise_interrupted(signum: int, frame: FrameType | None) -> None:
        raise Interrupted

    previous_handlers = {signum: signal.signal(signum, raise_interrupted) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in previous_handlers.items():
            signal.signal(signum, handler)
