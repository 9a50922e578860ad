"""What the folder of a sweep's job is called, behind its number: what the job sets."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

MOST_CHARACTERS = 100


def job_name(overrides: Iterable[str], typed: Collection[str]) -> str:
    """strategy=fixed,seed=1 from the `overrides` of one job. `typed` is the command line: what does not stand there as
    it is was swept over, and alone tells the jobs apart; where nothing is, all of it. Whole overrides past
    MOST_CHARACTERS are left out. Of a path the last part stays."""
    told = [line for line in overrides if not _says_where(line)]
    swept = [line for line in told if line not in typed]
    name = ",".join(filter(None, map(_readable, swept or told)))
    if len(name) > MOST_CHARACTERS:
        name = name[: MOST_CHARACTERS + 1].rpartition(",")[0] or name[:MOST_CHARACTERS]
    return name or "default"


def _says_where(line: str) -> bool:
    key = line.lstrip("+~").split("=", 1)[0]
    return key in ("output_dir", "sweep", "launcher") or re.match(r"hydra[./]", key) is not None


def _readable(line: str) -> str:
    key, equals, value = line.lstrip("+").partition("=")
    value = re.sub(r"""[][{}'"]""", "", value).rstrip("/").rpartition("/")[2]
    return re.sub(r"[^\w.=+~-]+", "-", f"{key}{equals}{value}")
