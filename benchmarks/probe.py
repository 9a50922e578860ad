"""Compare rules for the choice among a probe's classifiers on few validation images, and with `strategy=fixed`.

    python -m benchmarks.probe NAME=DIR [NAME=DIR ...] [key=value ...]       folders of images, CLASS/IMAGE

Each seed draws other splits: 45 % of the images for testing, 5 % for validation, and at most 30 train images of a
class. For every data set the table has the mean test accuracy of a head that `strategy=fixed` trains, of the probe's
choice by the lowest loss, and of the choice by the highest validation accuracy, which was the rule of versions 0.1 and
0.2; and how far the validation accuracy of each choice lies above its test accuracy.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

import torch

import thaw
from thaw.config.compose import compose_recipe
from thaw.probing.linear_heads import HeadGrid
from thaw.probing.probe import fit_classifiers
from thaw.probing.trial import ProbeTrial, fit_scaling
from thaw.training.extraction import Extraction, extract_features

SEEDS = range(5)
RECIPE = (
    "strategy=fixed",
    "dataset=folder",
    "data.train_per_class=30",
    "dataset.fractions.val=0.05",
    "dataset.fractions.test=0.45",
    "data.broken=skip",
)
Scores = dict[str, list[float]]


def main(arguments: list[str]) -> None:
    roots = {name: value for name, _, value in (text.partition("=") for text in arguments) if Path(value).is_dir()}
    overrides = [text for text in arguments if text.partition("=")[0] not in roots]
    print("| data set | classes | val | fixed | by loss | by accuracy | val - test | val - test, by accuracy |")
    print("|---|---|---|---|---|---|---|---|")
    for name, root in roots.items():
        print(_format_row(name, [f'dataset.root="{root}"', f"dataset.name={name}", *overrides]), flush=True)


def _format_row(name: str, overrides: list[str]) -> str:
    scores: Scores = {}
    for seed in SEEDS:
        extraction = _score_seed([*RECIPE, *overrides, f"seed={seed}", f"dataset.split_seed={seed}"], scores)
    num_val = extraction.samples.count_per_split()["val"]
    means = {key: statistics.mean(values) for key, values in scores.items()}
    accuracies = " | ".join(f"{means[key]:.3f}" for key in ("fixed", "loss", "accuracy"))
    gaps = " | ".join(f"{means[f'val {rule}'] - means[rule]:+.3f}" for rule in ("loss", "accuracy"))
    return f"| {name} | {len(extraction.classes)} | {num_val} | {accuracies} | {gaps} |"


def _score_seed(overrides: list[str], scores: Scores) -> Extraction:
    """Append the accuracies of one seed to `scores`."""
    with tempfile.TemporaryDirectory() as folder:
        run = thaw.train(thaw.compose(*overrides, f'output_dir="{folder}"'))
        scores.setdefault("fixed", []).append(run.metrics["test"]["accuracy"])
    extraction = extract_features(compose_recipe(overrides))
    trials, by_loss = fit_classifiers(extraction, HeadGrid(), torch.device("cpu"))
    by_accuracy = max((trial for trial in trials if trial.linear), key=lambda trial: trial.accuracy)
    for rule, trial in {"loss": by_loss, "accuracy": by_accuracy}.items():
        scores.setdefault(rule, []).append(_test(extraction, trial))
        scores.setdefault(f"val {rule}", []).append(trial.accuracy)
    return extraction


def _test(extraction: Extraction, trial: ProbeTrial) -> float:
    assert trial.linear is not None
    scaling = fit_scaling(extraction.values[extraction.samples.get_positions("train")])
    positions = extraction.samples.get_positions("test")
    logits = trial.linear.compute_logits(scaling.transform(extraction.values[positions]))
    return float((logits.argmax(1) == extraction.labels[positions]).mean())


if __name__ == "__main__":
    main(sys.argv[1:])
