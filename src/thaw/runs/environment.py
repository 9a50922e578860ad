"""The environment that a run records: versions, commit, time."""

from __future__ import annotations

import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

RECORDED_PACKAGES = ("torch", "torchvision", "pytorch-lightning", "timm", "hydra-core", "numpy", "pillow")


def format_current_time() -> str:
    """Return the local time with its offset from UTC: 2026-11-22T06:14:30+0000."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def get_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide a result."""
    return {"python": sys.version.split()[0], **{name: version(name) for name in RECORDED_PACKAGES}}


def get_git_revision() -> dict[str, Any] | None:
    """Return the commit of thaw's source and whether tracked files differ from it; None outside a checkout."""
    source_directory = Path(__file__).parent
    try:
        commit = _run_git(source_directory, "rev-parse", "HEAD")
        changes = _run_git(source_directory, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit, "changed": bool(changes)}


def _run_git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
