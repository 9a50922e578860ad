"""Run the experiments of conf/experiment/ whose data and weights are on this machine; download nothing.

python -m benchmarks.reproduce                                        all of them, seeds 0, 1 and 2; make reproduce
python -m benchmarks.reproduce hymenoptera_fixed captcha              the named ones
python -m benchmarks.reproduce --lite                                 EfficientNet-Lite0 instead of every backbone
python -m benchmarks.reproduce --root hymenoptera=DIR trainer.threads=2    a copy of a data set; settings for every run

The table compares the results with the published numbers. For an experiment that cannot run, it names the missing files
and the paths that they should have.
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
from thaw.metrics.per_class import wilson_interval
from thaw.models.catalog import describe_missing_weights
from thaw.system.cache_folder import resolve_cache_dir

LITE = ("backbone=efficientnet_lite0", "backbone.weights=default")
SPLITS_BY_SEED = "dataset.split_seed=${seed}"  # other validation images for each seed, as when docs/ was measured
PARTS = ("Published", "Expect", "Differs")
PUBLISHED_PATTERN = re.compile(r"(accuracy|loss) ([\d.]+)(?: to ([\d.]+))?\b|nothing: .+")


@dataclass(frozen=True)
class PublishedMetric:
    """A test metric between two numbers, which are equal if a single number was published."""

    metric: str
    low: float
    high: float

    def __str__(self) -> str:
        numbers = dict.fromkeys((f"{self.low:.3f}", f"{self.high:.3f}"))
        return f"{self.metric} {' to '.join(numbers)}"

    def format_difference(self, value: float) -> str:
        """Return the difference of `value` from the nearer end, or "within" if it is between both ends."""
        nearest = min(max(value, self.low), self.high)
        return f"{value - nearest:+.3f}" if value != nearest else "within"


def main(arguments: Sequence[str]) -> int:
    files = {file.stem: file for file in sorted((get_config_folder() / "experiment").glob("*.yaml"))}
    options = _parse_arguments(arguments, list(files))
    outputs = Path("outputs") / f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_reproduce"
    table, has_failed = [["experiment", "published", "ours", "difference", "remark"]], False
    for name in options.names or files:
        runs, remark = _run_experiment(name, options, outputs / name)
        has_failed |= remark == "failed"
        published = read_published_metric(files[name])
        table.append([f"`{name}`", str(published or "-"), *_format_results(published, runs), remark])
    print("\n" + "\n".join(_format_markdown(table)))
    return 1 if has_failed else 0


def read_header(file: Path) -> dict[str, str]:
    """Return the parts of the comment at the top of an experiment: `Shows`, `Commands` (one per line), and PARTS."""
    lines = file.read_text(encoding="utf-8").split("\ndefaults:")[0].splitlines()[2:]  # package and schema
    parts: dict[str, list[str]] = {"Shows": [], "Commands": []}
    part = "Shows"
    for comment_line in lines:
        line = comment_line.removeprefix("#")
        label = line.strip().split(":")[0]
        part = label if label in PARTS else part
        text = line.strip().removeprefix(f"{label}:") if label in PARTS else line
        parts.setdefault("Commands" if line.startswith("     ") else part, []).append(text.strip())
    return {name: ("\n" if name == "Commands" else " ").join(texts).strip() for name, texts in parts.items()}


def read_published_metric(file: Path) -> PublishedMetric | None:
    """Read the number after `Published:`, None if nothing was published. No other file holds the number."""
    match = PUBLISHED_PATTERN.match(read_header(file)["Published"])
    assert match is not None, f"{file}: Published: METRIC NUMBER [to NUMBER], or nothing: WHY"
    metric, low, high = match.groups()
    return PublishedMetric(metric, float(low), float(high or low)) if metric else None


def _parse_arguments(arguments: Sequence[str], known_names: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reproduce", description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="names of experiments, and settings key=value for every run")
    parser.add_argument("--lite", action="store_true", help="EfficientNet-Lite0 instead of every backbone")
    parser.add_argument("--root", action="append", default=[], metavar="DATASET=DIR", help="a copy of a data set")
    parser.add_argument("--seeds", default="0,1,2", help="0,1,2")
    options = parser.parse_intermixed_args(arguments)
    options.names = [word for word in options.words if "=" not in word]
    options.overrides = [word for word in options.words if "=" in word]
    options.roots = dict(assignment.split("=", 1) for assignment in options.root)
    if unknown_names := [name for name in options.names if name not in known_names]:
        parser.error(f"no experiment {', '.join(unknown_names)}; there are {', '.join(known_names)}")
    return options


def _run_experiment(name: str, options: argparse.Namespace, outputs: Path) -> tuple[list[dict[str, Any]], str]:
    """Train the experiment with every seed and return the metrics of the runs and a remark on them."""
    overrides = [f"experiment={name}", *(LITE if options.lite else ()), *options.overrides]
    root = options.roots.get(compose_recipe(overrides).dataset.name)
    overrides += [f"dataset.root={root}"] if root else []
    recipe = compose_recipe(overrides)
    if missing_files := _describe_missing_files(recipe):
        return [], f"needs {missing_files}"
    status = launch(["-m", *overrides, f"seed={options.seeds}", SPLITS_BY_SEED, f"output_dir={outputs}"])
    runs = [json.loads(file.read_text()) for file in sorted(outputs.rglob("metrics.json"))]
    if status:
        return runs, "failed"
    replacement = f"{recipe.backbone.name} instead of its backbone; " if options.lite else ""
    seconds = statistics.median(run["timing"]["wall_s"] for run in runs)
    return runs, f"{replacement}{seconds:.0f} s a run"


def _describe_missing_files(recipe: Recipe) -> str:
    cache = resolve_cache_dir(recipe.data.cache_dir)
    weights = describe_missing_weights(recipe.backbone, cache) if recipe.strategy.init == "pretrained" else ""
    return " and ".join(filter(None, [missing_download(recipe), weights]))


def _format_results(published: PublishedMetric | None, runs: Sequence[dict[str, Any]]) -> tuple[str, str]:
    """Format mean and standard deviation over the seeds, and the difference of the mean from the published number.

    An accuracy also has the 95 % interval (Wilson) of the mean for the number of test images.
    """
    if not runs:
        return "-", "-"
    metric = published.metric if published else "accuracy"
    values = [run["test"][metric] for run in runs]
    mean, count = statistics.mean(values), runs[0]["test"]["count"]
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    low, high = wilson_interval(round(mean * count), count) if metric == "accuracy" else (0.0, 0.0)
    interval = f", {low:.3f} to {high:.3f} by {count} images" if metric == "accuracy" else ""
    difference = published.format_difference(mean) if published else "-"
    return f"{metric} {mean:.3f}{spread} ({len(values)} seeds{interval})", difference


def _format_markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return [lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
