"""Run directories as a training leaves them, with chosen accuracies."""

from __future__ import annotations

import copy
import csv
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from thaw.config.compose import compose_recipe
from thaw.metrics.per_class import wilson_interval

CLASSES = ("ants", "bees")
REPLICATE_KEYS = ("folds", "fold", "dataset.split_seed")
HARDWARE = {"cpu": "one", "cores": 2, "gpus": [], "platform": "Linux"}


@cache
def build_recipe(*overrides: str) -> dict[str, Any]:
    return compose_recipe(overrides).to_dict()


def build_correct(count: int, wrong_indices: Sequence[int] = ()) -> np.ndarray:
    """Return bool [count]: all True except at `wrong_indices`."""
    return ~np.isin(np.arange(count), wrong_indices)


def write_run(
    directory: Path,
    *overrides: str,
    seed: int = 0,
    correct: np.ndarray | None = None,
    val_accuracy: float | None = 0.9,
    paths: Sequence[str] | None = None,
    val_losses: Sequence[float] = (0.9, 0.5),
    record: Mapping[str, Any] | None = None,
    groups: Sequence[str] | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> Path:
    """Write a run that is done. `record` replaces entries of run.json. If `val_accuracy` is None, the run has no
    validation images. `groups` are those of the test images, `metrics` are more metrics of them."""
    correct = build_correct(20, [0, 1]) if correct is None else correct
    paths = [f"test/{index:02}.png" for index in range(len(correct))] if paths is None else paths
    directory.mkdir(parents=True)
    recipe = _set_replicate(overrides) | {"seed": seed}
    start_minute = len(list(directory.parent.iterdir()))
    run_record: dict[str, Any] = {
        "status": "done",
        "seed": seed,
        "started": f"2026-11-22T06:{start_minute:02}:00+0000",
        "versions": {"torch": "2.15.0"},
        "git": {"commit": "0123456789abcdef", "changed": False},
        "data": {
            "fingerprint": f"of seed {seed}",
            "classes": 2,
            "images": {"train": 40, "val": 10, "test": len(correct)},
        },
        "parameters": {"total": 1000, "trainable": 100},
        "plan": [{"name": "all", "start": 0, "end": recipe["trainer"]["epochs"], "parts": []}],
        "hardware": HARDWARE,
    }
    (directory / "run.json").write_text(json.dumps(run_record | dict(record or {})))
    all_metrics = _build_metrics(correct, val_accuracy, seed)
    all_metrics["test"] |= metrics or {}
    (directory / "metrics.json").write_text(json.dumps(all_metrics, default=float))
    (directory / "config.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    _write_predictions(directory / "predictions.csv", paths, correct, groups)
    _write_history(directory / "history.csv", val_losses, val_accuracy is not None)
    return directory


def _set_replicate(overrides: Sequence[str]) -> dict[str, Any]:
    """Compose the recipe once for all folds and splits, which takes half a second, and set those afterwards."""
    pairs = {override: override.partition("=") for override in overrides}
    replicate = {override: pair for override, pair in pairs.items() if pair[0] in REPLICATE_KEYS}
    recipe = copy.deepcopy(build_recipe(*(override for override in overrides if override not in replicate)))
    for key, _, value in replicate.values():
        entries = recipe["dataset"] if key.startswith("dataset.") else recipe
        entries[key.removeprefix("dataset.")] = int(value)
    return recipe


def _build_metrics(correct: np.ndarray, val_accuracy: float | None, seed: int) -> dict[str, Any]:
    interval = wilson_interval(int(correct.sum()), len(correct))
    scores = {"macro_accuracy": correct.mean(), "macro_f1": correct.mean(), "loss": 0.3, "count": len(correct)}
    val_scores = {} if val_accuracy is None else {"val": {"accuracy": val_accuracy, "loss": 1 - val_accuracy}}
    return {
        "test": {"accuracy": correct.mean(), "accuracy_ci95": interval, **scores},
        "timing": {"wall_s": 10.0 + seed, "train_s": 8.0, "images_per_s": 100.0, "cache_s": 0.0},
        **val_scores,
    }


def write_failed_run(directory: Path, error: str, status: str = "failed") -> Path:
    """Write a run that ended before it had a recipe."""
    directory.mkdir(parents=True)
    (directory / "run.json").write_text(json.dumps({"status": status, "error": error}))
    return directory


def _write_predictions(file: Path, paths: Sequence[str], correct: np.ndarray, groups: Sequence[str] | None) -> None:
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label", "prediction", "probability", *(["group"] if groups is not None else [])])
        for index, (path, is_correct) in enumerate(zip(paths, correct, strict=True)):
            label = CLASSES[index % 2]
            prediction = label if is_correct else CLASSES[1 - index % 2]
            writer.writerow([path, label, prediction, "0.9", *([groups[index]] if groups is not None else [])])


def _write_history(file: Path, val_losses: Sequence[float], has_validation: bool) -> None:
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["epoch", "val_loss", "val_accuracy"])
        for index, loss in enumerate(val_losses):
            writer.writerow([index + 1, *((loss, 1 - loss) if has_validation else ("", ""))])
