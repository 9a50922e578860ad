"""What a sweep pays beside its jobs' own time: imports, fetching, decoding and features are to be paid once.

    python -m benchmarks.sweep                                    captcha, EfficientNet-Lite0: 3 strategies x 3 seeds
    python -m benchmarks.sweep dataset=hymenoptera trainer.epochs=10

The sweep begins with an empty cache and in a process of its own, so that its wall time counts everything: the start of
Python, imports, drawing or decoding, features, and the comparison at the end. A job's own time is `timing.wall_s`: from
what it fetches to what it records.
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
        places = [f"output_dir={folder}/outputs", f"data.cache_dir={folder}/cache"]
        began = time.perf_counter()
        subprocess.run([*COMMAND, *overrides, *places], check=True, stdout=subprocess.DEVNULL)
        report(time.perf_counter() - began, timings(Path(folder)))


def timings(folder: Path) -> list[dict[str, float]]:
    return [json.loads(file.read_text())["timing"] for file in sorted(folder.glob("outputs/*/*/metrics.json"))]


def report(wall: float, jobs: Sequence[dict[str, float]]) -> None:
    own, trained = (sum(job[name] for job in jobs) for name in ("wall_s", "train_s"))
    cached = sum(job["cache_s"] for job in jobs)
    print(f"{len(jobs)} jobs, from the command to the prompt {wall:.1f} s")
    print(f"the jobs' own time {own:.1f} s: the sweep takes {wall / own:.3f} times as long")
    times = wall / (trained + cached)
    print(f"their epochs alone {trained:.1f} s, features {cached:.1f} s: {times:.3f} times as long")


if __name__ == "__main__":
    main(sys.argv[1:])
