"""Launchers of sweeps that are installed apart: `pip install "thaw[joblib]"`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from hydra.core.override_parser.types import Override

from thaw.config.faults import Problem

LAUNCHER_GROUPS = ("launcher", "hydra/launcher")
EXTRA_BY_LAUNCHER = {"joblib": "joblib", "submitit_local": "submitit", "submitit_slurm": "submitit", "ray": "ray"}


def get_install_command(group: str, name: str) -> str:
    """What to type where the choice `name` of `group` is there once it is installed; else nothing."""
    return (
        f'pip install "thaw[{EXTRA_BY_LAUNCHER[name]}]"'
        if group in LAUNCHER_GROUPS and name in EXTRA_BY_LAUNCHER
        else ""
    )


def detect_missing_launcher(message: str) -> Problem | None:
    """The fault behind `message`, Hydra's own, where it speaks of a launcher that is not installed."""
    match = re.search(r"hydra/launcher/(\w+)", message)
    fix = get_install_command("launcher", match[1]) if match else ""
    return Problem(f"launcher={match[1]}", "not installed", fix=fix) if match and fix else None


def find_unused_launchers(overrides: Sequence[Override]) -> Iterator[Problem]:
    """Of a single run: nothing would be launched."""
    for override in overrides:
        if override.key_or_group in LAUNCHER_GROUPS and not override.is_delete():
            yield Problem(str(override.input_line), "one run, which nothing launches", "a sweep", "put -m in front")
