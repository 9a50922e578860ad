"""How much memory this process has used at most, and how much it could still have, in bytes."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from pathlib import Path

STATUS, FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
SYSTEM, GROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def forget_peak() -> None:
    """Lets `resident_peak` begin anew, without what is free in glibc's heap, where the system can do that; else it is
    of the process' whole life."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
    try:
        FORGET.write_text("5")  # resets VmHWM: proc(5)
    except OSError:
        return


def resident_peak() -> int:
    """The largest resident set."""
    if STATUS.exists():
        return _kibibytes(STATUS, "VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def available() -> int:
    """Of the machine, or of the container where that has a limit; the machine's whole memory where it does not say."""
    if not SYSTEM.exists():
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(_kibibytes(SYSTEM, "MemAvailable"), left_in(GROUP))


def left_in(group: Path) -> int:
    """Under the limit of a control group (version 2). Its cache of files gives way."""
    try:
        limit, used = (group / "memory.max").read_text().strip(), int((group / "memory.current").read_text())
        rows = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return sys.maxsize if limit == "max" else int(limit) - used + int(rows["inactive_file"])
    except OSError:
        return sys.maxsize


def _kibibytes(table: Path, name: str) -> int:
    rows = dict(line.split(":", 1) for line in table.read_text().splitlines() if ":" in line)
    return int(rows[name].split()[0]) * 1024
