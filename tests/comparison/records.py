"""Run directories as a training leaves them, with accuracies of one's choice."""

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
from thaw.metrics.classification import wilson_interval

CLASSES = ("ants", "bees")
HARDWARE = {"cpu": "one", "cores": 2, "gpus": [], "platform": "Linux"}


@cache
def recipe_of(*overrides: str) -> dict[str, Any]:
    return compose_recipe(overrides).to_dict()


def rights(count: int, wrong: Sequence[int] = ()) -> np.ndarray:
    """bool [count]: all right but those at `wrong`."""
    return ~np.isin(np.arange(count), wrong)


def write_run(
    directory: Path,
    *overrides: str,
    seed: int = 0,
    right: np.ndarray | None = None,
    val: float | None = 0.9,
    paths: Sequence[str] | None = None,
    losses: Sequence[float] = (0.9, 0.5),
    about: Mapping[str, Any] | None = None,
) -> Path:
    """A run that is done; `about` overrules entries of run.json. Without `val` it has no validation images."""
    right = rights(20, [0, 1]) if right is None else right
    paths = [f"test/{place:02}.png" for place in range(len(right))] if paths is None else paths
    directory.mkdir(parents=True)
    recipe = copy.deepcopy(recipe_of(*overrides)) | {"seed": seed}
    record: dict[str, Any] = {
        "status": "done",
        "seed": seed,
        "started": f"2026-11-22T06:{len(list(directory.parent.iterdir())):02}:00+0000",
        "versions": {"torch": "2.15.0"},
        "git": {"commit": "0123456789abcdef", "changed": False},
        "data": {
            "fingerprint": f"of seed {seed}",
            "classes": 2,
            "images": {"train": 40, "val": 10, "test": len(right)},
        },
        "parameters": {"total": 1000, "trainable": 100},
        "plan": [{"name": "all", "start": 0, "end": recipe["trainer"]["epochs"], "parts": []}],
        "hardware": HARDWARE,
    }
    scores = {"macro_accuracy": right.mean(), "macro_f1": right.mean(), "loss": 0.3, "count": len(right)}
    test = {"accuracy": right.mean(), "accuracy_ci95": wilson_interval(int(right.sum()), len(right)), **scores}
    timing = {"wall_s": 10.0 + seed, "train_s": 8.0, "images_per_s": 100.0, "cache_s": 0.0}
    metrics = {"test": test, "timing": timing, **({} if val is None else {"val": {"accuracy": val, "loss": 1 - val}})}
    (directory / "run.json").write_text(json.dumps(record | dict(about or {})))
    (directory / "metrics.json").write_text(json.dumps(metrics, default=float))
    (directory / "config.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    _write_predictions(directory / "predictions.csv", paths, right)
    _write_history(directory / "history.csv", losses, val)
    return directory


def write_failed(directory: Path, error: str, status: str = "failed") -> Path:
    """A run that ended before it had a recipe."""
    directory.mkdir(parents=True)
    (directory / "run.json").write_text(json.dumps({"status": status, "error": error}))
    return directory


def _write_predictions(file: Path, paths: Sequence[str], right: np.ndarray) -> None:
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label", "prediction", "probability"])
        for place, (path, is_right) in enumerate(zip(paths, right, strict=True)):
            label = CLASSES[place % 2]
            writer.writerow([path, label, label if is_right else CLASSES[1 - place % 2], "0.9"])


def _write_history(file: Path, losses: Sequence[float], val: float | None) -> None:
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["epoch", "val_loss", "val_accuracy"])
        writer.writerows([number + 1, *((loss, 1 - loss) if val else ("", ""))] for number, loss in enumerate(losses))
