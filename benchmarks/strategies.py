"""Train every strategy with three seeds and print a table: mean and spread of the test accuracy, and seconds.

python -m benchmarks.strategies                                   hymenoptera; downloads the images, 30 min on 2 cores
python -m benchmarks.strategies dataset.root=DIR                  on a copy of the images in DIR
python -m benchmarks.strategies --read outputs/SWEEP              the table of a finished sweep
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
    """Print the runs of `sweep` as a Markdown table, a row for each strategy.

    The spread is the standard deviation over seeds; the seconds are the median over runs of the training time.
    """
    runs_by_strategy: dict[str, list[dict[str, Any]]] = {}
    files = [(yaml.safe_load((file.parent / "config.yaml").read_text()), file) for file in sweep.rglob("metrics.json")]
    for recipe, file in sorted(files, key=lambda entry: entry[0]["seed"]):
        runs_by_strategy.setdefault(recipe["strategy"]["name"], []).append(json.loads(file.read_text()))
    print("\n| strategy | test accuracy | seeds | seconds |\n|---|---|---|---|")
    for name in sorted(runs_by_strategy, key=STRATEGIES.index):
        print(_format_row(name, runs_by_strategy[name]))


def _format_row(name: str, runs: Sequence[dict[str, Any]]) -> str:
    accuracies = [run["test"]["accuracy"] for run in runs]
    seconds = statistics.median(run["timing"]["train_s"] for run in runs)
    spread = f" ± {statistics.stdev(accuracies):.3f}" if len(accuracies) > 1 else ""
    accuracy_list = ", ".join(f"{accuracy:.3f}" for accuracy in accuracies)
    return f"| `{name}` | {statistics.mean(accuracies):.3f}{spread} | {accuracy_list} | {seconds:.0f} |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
