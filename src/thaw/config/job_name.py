"""What the folder of a sweep's job is called, behind its number: what the job sets."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

MAX_JOB_NAME_LENGTH = 100


def build_job_name(overrides: Iterable[str], command_line: Collection[str]) -> str:
    """strategy=fixed,seed=1 from the `overrides` of one job. `typed` is the command line: what does not stand there as
    it is was swept over, and alone tells the jobs apart; where nothing is, all of it. Whole overrides past
    MOST_CHARACTERS are left out. Of a path the last part stays."""
    relevant_overrides = [line for line in overrides if not _is_launch_override(line)]
    swept_overrides = [line for line in relevant_overrides if line not in command_line]
    name = ",".join(filter(None, map(_format_override, swept_overrides or relevant_overrides)))
    if len(name) > MAX_JOB_NAME_LENGTH:
        name = name[: MAX_JOB_NAME_LENGTH + 1].rpartition(",")[0] or name[:MAX_JOB_NAME_LENGTH]
    return name or "default"


def _is_launch_override(line: str) -> bool:
    key = line.lstrip("+~").split("=", 1)[0]
    return key in ("output_dir", "sweep", "launcher") or re.match(r"hydra[./]", key) is not None


def _format_override(line: str) -> str:
    key, equals, value = line.lstrip("+").partition("=")
    value = re.sub(r"""[][{}'"]""", "", value).rstrip("/").rpartition("/")[2]
    return re.sub(r"[^\w.=+~-]+", "-", f"{key}{equals}{value}")
