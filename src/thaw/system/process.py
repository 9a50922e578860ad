"""Process-wide settings of a training, how to restore them, and the memory of the process."""

from __future__ import annotations

import atexit
import ctypes
import gc
import hashlib
import logging
import os
import random
import resource
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # parameters of mallopt in glibc's malloc.h
DEFAULT_TRIM_THRESHOLD, DEFAULT_MMAP_MAX = 128 * 1024, 65536  # mallopt(3)
_deterministic_module: Any = torch.utils.deterministic
_keeps_freed_memory = False  # in this process; glibc cannot be asked
Restore = Callable[[], None]
STATUS_FILE, CLEAR_REFS_FILE = Path("/proc/self/status"), Path("/proc/self/clear_refs")
MEMINFO_FILE, CGROUP_FOLDER = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM. Not a KeyboardInterrupt: Lightning would exit the process on one."""


def configure_process(seed: int, deterministic: bool, threads: int | None) -> None:
    """Set seeds, threads, determinism and memory options, as functions of the arguments alone.

    Every job of a sweep calls it, so no setting of one job reaches the next.
    """
    keep_freed_memory()
    freeze_gc()
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # without it cuBLAS sums in any order
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    _deterministic_module.fill_uninitialized_memory = False  # a guard against bugs; costs a pass over each new tensor
    torch.backends.cudnn.benchmark = not deterministic
    torch.set_num_threads(threads or available_cpus())
    torch.set_float32_matmul_precision("high")
    if not torch.cuda.is_available():  # otherwise torch asks the driver for a GPU in every optimizer step: 91 us
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"  # 3 us
    seed_everything(seed)


def keep_freed_memory() -> None:
    """Make glibc keep the memory that a step frees.

    By default glibc returns tensors to the kernel and faults them in again: 28 % of a fine-tuning step on 2 cores
    (1067 -> 776 ms, EfficientNet-Lite0, batch 64 at 96 px).
    """
    global _keeps_freed_memory
    _set_malloc_options(mmap_max=0, trim_threshold=2**31 - 1)
    _keeps_freed_memory = True


def _free_kept_memory() -> None:
    """Set malloc's options to glibc's defaults and return free memory to the system."""
    global _keeps_freed_memory
    _set_malloc_options(DEFAULT_MMAP_MAX, DEFAULT_TRIM_THRESHOLD)
    if hasattr(ctypes.CDLL(None), "malloc_trim"):
        ctypes.CDLL(None).malloc_trim(0)
    _keeps_freed_memory = False


def _set_malloc_options(mmap_max: int, trim_threshold: int) -> None:
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):  # musl has none
            libc.mallopt(M_MMAP_MAX, mmap_max)
            libc.mallopt(M_TRIM_THRESHOLD, trim_threshold)


def freeze_gc() -> None:
    """Exclude everything that is imported from garbage collection, once per process.

    torch, Lightning and timm are a million objects. Scanning them once takes 0.4 s, a sixth of a run on cached
    features. Later calls do nothing: they would keep the objects of earlier jobs of a sweep.
    """
    if gc.get_freeze_count():
        return
    gc.collect()
    gc.freeze()
    atexit.unregister(gc.unfreeze)
    atexit.register(gc.unfreeze)  # otherwise triton's bindings report leaks when Python exits


def available_cpus() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def seed_everything(*parts: int | str) -> None:
    """Seed the generators of random, NumPy and torch with a hash of `parts`."""
    seed = int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def raise_on_interrupt() -> Iterator[None]:
    """Raise Interrupted on Ctrl-C and SIGTERM inside the context; restore the signal handlers after it.

    Does nothing outside the main thread, where Python does not allow signal handlers.
    """

    def raise_interrupted(signum: int, frame: FrameType | None) -> None:
        raise Interrupted

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous_handlers = {signum: signal.signal(signum, raise_interrupted) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in previous_handlers.items():
            signal.signal(signum, handler)


@contextmanager
def preserve_process_state() -> Iterator[None]:
    """Restore after the context what a training changes in its process, whether it succeeds or fails.

    Restores torch's threads, determinism, matmul precision and cuDNN mode; the generators of random, NumPy and torch;
    environment variables, current directory, `sys.path` and `sys.argv`; signal handlers; warning filters and loggers;
    frozen garbage collection; Hydra's global configuration. glibc's malloc options are set to glibc's defaults.
    """
    from thaw.config.compose import preserve_hydra

    with ExitStack() as stack, warnings.catch_warnings(), preserve_hydra():
        for save in _SAVE_FUNCTIONS:
            stack.callback(save())
        yield


def _save_torch_settings() -> Restore:
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fill_memory = _deterministic_module.fill_uninitialized_memory
    benchmark = torch.backends.cudnn.benchmark
    matmul_precision = torch.get_float32_matmul_precision()

    def restore() -> None:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        _deterministic_module.fill_uninitialized_memory = fill_memory
        torch.backends.cudnn.benchmark = benchmark
        torch.set_float32_matmul_precision(matmul_precision)

    return restore


def _save_random_states() -> Restore:
    python_state, numpy_state, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda_states = torch.cuda.get_rng_state_all() if _is_cuda_initialized() else []

    def restore() -> None:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)
        if cuda_states:
            torch.cuda.set_rng_state_all(cuda_states)

    return restore


def _is_cuda_initialized() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def _save_environment() -> Restore:
    variables, directory = dict(os.environ), os.getcwd()  # noqa: PTH109
    path, arguments = list(sys.path), list(sys.argv)

    def restore() -> None:
        for name in os.environ.keys() - variables.keys():
            del os.environ[name]
        os.environ.update(variables)
        os.chdir(directory)
        sys.path[:], sys.argv[:] = path, arguments

    return restore


def _save_signal_handlers() -> Restore:
    handlers = {signum: signal.getsignal(signum) for signum in signal.valid_signals()}

    def restore() -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for signum, handler in handlers.items():
            if handler is not None and signal.getsignal(signum) is not handler:
                signal.signal(signum, handler)

    return restore


def _save_loggers() -> Restore:
    """Save the loggers that exist. Lightning's are created when it is imported, so it is imported here."""
    import pytorch_lightning  # noqa: F401

    names = [name for name, logger in logging.root.manager.loggerDict.items() if isinstance(logger, logging.Logger)]
    loggers = [logging.root, *map(logging.getLogger, names)]
    states = [(logger, logger.level, list(logger.handlers), logger.propagate, logger.disabled) for logger in loggers]

    def restore() -> None:
        for logger, level, handlers, propagate, disabled in states:
            logger.setLevel(level)
            logger.handlers[:], logger.propagate, logger.disabled = handlers, propagate, disabled

    return restore


def _save_memory_options() -> Restore:
    was_frozen, kept_freed_memory = gc.get_freeze_count() > 0, _keeps_freed_memory

    def restore() -> None:
        if not was_frozen:
            gc.unfreeze()
        if _keeps_freed_memory and not kept_freed_memory:
            _free_kept_memory()

    return restore


_SAVE_FUNCTIONS = (
    _save_torch_settings,
    _save_random_states,
    _save_environment,
    _save_signal_handlers,
    _save_loggers,
    _save_memory_options,
)


def reset_peak_memory() -> None:
    """Restart the measurement of `get_peak_memory`, after glibc has returned its free memory to the system.

    If the system cannot reset it, the peak is that of the whole life of the process.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
    try:
        CLEAR_REFS_FILE.write_text("5")  # resets VmHWM: proc(5)
    except OSError:
        return


def get_peak_memory() -> int:
    """Return the maximum resident set size."""
    if STATUS_FILE.exists():
        return _read_field_bytes(STATUS_FILE, "VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def get_available_memory() -> int:
    """Return the available memory of the machine, or of the container if it has a limit.

    Systems without /proc/meminfo report the total memory of the machine.
    """
    if not MEMINFO_FILE.exists():
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(_read_field_bytes(MEMINFO_FILE, "MemAvailable"), get_available_in_cgroup(CGROUP_FOLDER))


def get_available_in_cgroup(cgroup: Path) -> int:
    """Return the memory below the limit of a control group (version 2); its file cache counts as available."""
    try:
        limit, used_bytes = (cgroup / "memory.max").read_text().strip(), int((cgroup / "memory.current").read_text())
        fields = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
        return sys.maxsize if limit == "max" else int(limit) - used_bytes + int(fields["inactive_file"])
    except OSError:
        return sys.maxsize


def _read_field_bytes(file: Path, name: str) -> int:
    fields = dict(line.split(":", 1) for line in file.read_text().splitlines() if ":" in line)
    return int(fields[name].split()[0]) * 1024
