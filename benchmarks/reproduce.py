"""The experiments of conf/experiment/ whose data and weights are here, ours beside what was published; fetches nothing.

python -m benchmarks.reproduce                                        all of them, seeds 0, 1 and 2; make reproduce
python -m benchmarks.reproduce hymenoptera_fixed captcha              those named
python -m benchmarks.reproduce --lite                                 EfficientNet-Lite0 in the place of every backbone
python -m benchmarks.reproduce --root hymenoptera=DIR trainer.threads=2    a copy of a data set; settings for every run

Of what is left out it says which file is missing and where it would lie.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thaw.cli.train import launch
from thaw.config.compose import compose_recipe, get_config_folder
from thaw.config.schema import Recipe
from thaw.data.factory import missing_download
from thaw.metrics.classification import wilson_interval
from thaw.models.catalog import describe_missing_weights
from thaw.system.cache_folder import resolve_cache_dir

LITE = ("backbone=efficientnet_lite0", "backbone.weights=default")
PARTS = ("Published", "Expect", "Differs")
PUBLISHED = re.compile(r"(accuracy|loss) ([\d.]+)(?: to ([\d.]+))?\b|nothing: .+")


@dataclass(frozen=True)
class Published:
    """A test metric between two numbers, which are equal where one was published."""

    metric: str
    low: float
    high: float

    def __str__(self) -> str:
        numbers = dict.fromkeys((f"{self.low:.3f}", f"{self.high:.3f}"))
        return f"{self.metric} {' to '.join(numbers)}"

    def difference(self, ours: float) -> str:
        """From the nearer end; of a number that lies between them none."""
        nearest = min(max(ours, self.low), self.high)
        return f"{ours - nearest:+.3f}" if ours != nearest else "within"


def main(arguments: Sequence[str]) -> int:
    asked = _asked(arguments)
    files = {file.stem: file for file in sorted((get_config_folder() / "experiment").glob("*.yaml"))}
    outputs = Path("outputs") / f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_reproduce"
    table, failed = [["experiment", "published", "ours", "difference", "remark"]], 0
    for name in asked.names or files:
        runs, remark = _reproduced(name, asked, outputs / name)
        failed += remark == "failed"
        published = published_in(files[name])
        said = str(published) if published else "-"
        table.append([f"`{name}`", said, *_ours(published, runs), remark])
    print("\n" + "\n".join(_markdown(table)))
    return 1 if failed else 0


def header(file: Path) -> dict[str, str]:
    """The parts of the comment that an experiment opens with: `Shows`, `Commands` (a line each), and PARTS."""
    lines = file.read_text(encoding="utf-8").split("\ndefaults:")[0].splitlines()[2:]  # package and schema
    found: dict[str, list[str]] = {"Shows": [], "Commands": []}
    part = "Shows"
    for line in (one.removeprefix("#") for one in lines):
        label = line.strip().split(":")[0]
        part = label if label in PARTS else part
        text = line.strip().removeprefix(f"{label}:") if label in PARTS else line
        found.setdefault("Commands" if line.startswith("     ") else part, []).append(text.strip())
    return {name: ("\n" if name == "Commands" else " ").join(texts).strip() for name, texts in found.items()}


def published_in(file: Path) -> Published | None:
    """What stands behind `Published:`, None where that is nothing. The file is the one place for the number."""
    found = PUBLISHED.match(header(file)["Published"])
    assert found is not None, f"{file}: Published: METRIC NUMBER [to NUMBER], or nothing: WHY"
    metric, low, high = found.groups()
    return Published(metric, float(low), float(high or low)) if metric else None


def _asked(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reproduce", description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="names of experiments, and settings key=value for every run")
    parser.add_argument("--lite", action="store_true", help="EfficientNet-Lite0 in the place of every backbone")
    parser.add_argument("--root", action="append", default=[], metavar="DATASET=DIR", help="a copy of a data set")
    parser.add_argument("--seeds", default="0,1,2", help="0,1,2")
    asked = parser.parse_intermixed_args(arguments)
    asked.names = [one for one in asked.words if "=" not in one]
    asked.settings = [one for one in asked.words if "=" in one]
    asked.roots = dict(one.split("=", 1) for one in asked.root)
    known = {file.stem for file in (get_config_folder() / "experiment").glob("*.yaml")}
    if unknown := [one for one in asked.names if one not in known]:
        parser.error(f"no experiment {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    return asked


def _reproduced(name: str, asked: argparse.Namespace, outputs: Path) -> tuple[list[dict[str, Any]], str]:
    """The metrics of every seed's run, and what is to be said of them."""
    overrides = [f"experiment={name}", *(LITE if asked.lite else ()), *asked.settings]
    root = asked.roots.get(compose_recipe(overrides).dataset.name)
    overrides += [f"dataset.root={root}"] if root else []
    recipe = compose_recipe(overrides)
    if missing := _missing(recipe):
        return [], f"needs {missing}"
    status = launch(["-m", *overrides, f"seed={asked.seeds}", f"output_dir={outputs}"])
    runs = [json.loads(file.read_text()) for file in sorted(outputs.rglob("metrics.json"))]
    instead = f"{recipe.backbone.name} in its backbone's place; " if asked.lite else ""
    return runs, "failed" if status else f"{instead}{_seconds(runs):.0f} s a run"


def _missing(recipe: Recipe) -> str:
    cache = resolve_cache_dir(recipe.data.cache_dir)
    weights = describe_missing_weights(recipe.backbone, cache) if recipe.strategy.init == "source" else ""
    return " and ".join(filter(None, [missing_download(recipe.dataset, cache), weights]))


def _seconds(runs: Sequence[dict[str, Any]]) -> float:
    return statistics.median(run["timing"]["wall_s"] for run in runs)


def _ours(published: Published | None, runs: Sequence[dict[str, Any]]) -> tuple[str, str]:
    """Mean and standard deviation over the seeds; of accuracies also the 95 % interval (Wilson) that the number of test
    images leaves to the mean."""
    if not runs:
        return "-", "-"
    metric = published.metric if published else "accuracy"
    values = [run["test"][metric] for run in runs]
    mean, count = statistics.mean(values), runs[0]["test"]["count"]
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    low, high = wilson_interval(round(mean * count), count) if metric == "accuracy" else (0.0, 0.0)
    interval = f", {low:.3f} to {high:.3f} by {count} images" if metric == "accuracy" else ""
    return f"{metric} {mean:.3f}{spread} ({len(values)} seeds{interval})", published.difference(
        mean
    ) if published else "-"


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return [lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
