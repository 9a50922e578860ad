"""Measure the peak memory of this process and the available memory, in bytes."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from pathlib import Path

STATUS_FILE, CLEAR_REFS_FILE = Path("/proc/self/status"), Path("/proc/self/clear_refs")
MEMINFO_FILE, CGROUP_FOLDER = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


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
