"""Every strategy over three seeds, as a table: mean and spread of the test accuracy, and seconds of training.

python -m benchmarks.strategies                                   hymenoptera; fetches the images, 30 min on 2 cores
python -m benchmarks.strategies dataset.root=DIR                  on a copy that is there
python -m benchmarks.strategies --read outputs/SWEEP              the table of a sweep that has run
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from thaw.cli.train import launch

STRATEGIES = (
    "scratch",
    "fixed",
    "finetune",
    "partial",
    "first_layers",
    "gradual",
    "lp_ft",
    "discriminative",
    "norm_only",
    "bias_only",
    "l2_sp",
)
RECIPE = (
    "dataset=hymenoptera",
    "dataset.image_size=288",
    "augment=flip",
    "optimizer.learning_rate=3e-4",
    "seed=0,1,2",
)


def main(arguments: Sequence[str]) -> int:
    if arguments[:1] == ["--read"]:
        report(Path(arguments[1]))
        return 0
    outputs = Path("outputs") / "strategies"
    status = launch(["-m", f"strategy={','.join(STRATEGIES)}", *RECIPE, *arguments, f"output_dir={outputs}"])
    report(max(outputs.glob("*_sweep_*"), key=lambda folder: folder.stat().st_mtime))
    return status


def report(sweep: Path) -> None:
    """Markdown. The spread is the standard deviation over seeds; the seconds are the median of those of all epochs."""
    by_strategy: dict[str, list[dict[str, Any]]] = {}
    files = [(yaml.safe_load((file.parent / "config.yaml").read_text()), file) for file in sweep.rglob("metrics.json")]
    for recipe, file in sorted(files, key=lambda one: one[0]["seed"]):
        by_strategy.setdefault(recipe["strategy"]["name"], []).append(json.loads(file.read_text()))
    print("\n| strategy | test accuracy | seeds | seconds |\n|---|---|---|---|")
    for name in sorted(by_strategy, key=lambda one: STRATEGIES.index(one)):
        print(_row(name, by_strategy[name]))


def _row(name: str, runs: Sequence[dict[str, Any]]) -> str:
    accuracies = [run["test"]["accuracy"] for run in runs]
    seconds = statistics.median(run["timing"]["train_s"] for run in runs)
    spread = f" ± {statistics.stdev(accuracies):.3f}" if len(accuracies) > 1 else ""
    each = ", ".join(f"{one:.3f}" for one in accuracies)
    return f"| `{name}` | {statistics.mean(accuracies):.3f}{spread} | {each} | {seconds:.0f} |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
