"""Measure the overhead of a sweep: imports, downloads, decoding and features should be paid for once.

    python -m benchmarks.sweep                                    captcha, EfficientNet-Lite0: 3 strategies x 3 seeds
    python -m benchmarks.sweep dataset=hymenoptera trainer.epochs=10

The sweep starts with an empty cache and in its own process, so that its wall time counts everything: the start of
Python, imports, drawing or decoding images, features, and the comparison at the end. A job's own time is
`timing.wall_s`: from its downloads to its record.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

COMMAND = (sys.executable, "-m", "thaw.cli.main", "train", "-m", "sweep=strategies")


def main(overrides: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        directories = [f"output_dir={folder}/outputs", f"data.cache_dir={folder}/cache"]
        start = time.perf_counter()
        subprocess.run([*COMMAND, *overrides, *directories], check=True, stdout=subprocess.DEVNULL)
        report(time.perf_counter() - start, read_timings(Path(folder)))


def read_timings(folder: Path) -> list[dict[str, float]]:
    """Return the `timing` of every job."""
    return [json.loads(file.read_text())["timing"] for file in sorted(folder.glob("outputs/*/*/metrics.json"))]


def report(sweep_s: float, timings: Sequence[dict[str, float]]) -> None:
    """Print the seconds of the sweep and of its jobs, and their ratios."""
    jobs_s, train_s, cache_s = (sum(timing[name] for timing in timings) for name in ("wall_s", "train_s", "cache_s"))
    print(f"{len(timings)} jobs, from the command to the prompt {sweep_s:.1f} s")
    print(f"the jobs' own time {jobs_s:.1f} s: the sweep takes {sweep_s / jobs_s:.3f} times as long")
    ratio = sweep_s / (train_s + cache_s)
    print(f"their epochs alone {train_s:.1f} s, features {cache_s:.1f} s: {ratio:.3f} times as long")


if __name__ == "__main__":
    main(sys.argv[1:])
