"""Launchers of sweeps that are installed apart: `pip install "thaw[joblib]"`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from hydra.core.override_parser.types import Override

from thaw.config.faults import Fault

GROUPS = ("launcher", "hydra/launcher")
EXTRAS = {"joblib": "joblib", "submitit_local": "submitit", "submitit_slurm": "submitit", "ray": "ray"}


def installation(group: str, name: str) -> str:
    """What to type where the choice `name` of `group` is there once it is installed; else nothing."""
    return f'pip install "thaw[{EXTRAS[name]}]"' if group in GROUPS and name in EXTRAS else ""


def missing_launcher(message: str) -> Fault | None:
    """The fault behind `message`, Hydra's own, where it speaks of a launcher that is not installed."""
    found = re.search(r"hydra/launcher/(\w+)", message)
    fix = installation("launcher", found[1]) if found else ""
    return Fault(f"launcher={found[1]}", "not installed", fix=fix) if found and fix else None


def idle_launchers(overrides: Sequence[Override]) -> Iterator[Fault]:
    """Of a single run: nothing would be launched."""
    for one in overrides:
        if one.key_or_group in GROUPS and not one.is_delete():
            yield Fault(str(one.input_line), "one run, which nothing launches", "a sweep", "put -m in front")
