"""A probe: classifiers of features that are computed once, chosen on the validation images, the best kept as a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits
from torch import nn

from thaw.config.faults import Fault, UserFault
from thaw.config.schema import Recipe
from thaw.features.classifiers import linear_svms, logistic_regressions, nearest_centroid, neighbours
from thaw.features.heads import Grid, head_trials
from thaw.features.scaling import Linear, scaling_of
from thaw.features.trial import Trial, Vectors, chosen
from thaw.network.head import linear_layers
from thaw.training.extraction import Extracted, extracted
from thaw.training.hardware import accelerator_for
from thaw.training.outcome import Predicted, metrics_by_split
from thaw.training.probe_record import write_probe
from thaw.training.run import Run, claimed, new_run, recorded


@dataclass(frozen=True)
class Probed:
    """`winner` is one of `trials`; `metrics` is what `metrics.json` holds."""

    trials: list[Trial]
    winner: Trial
    metrics: dict[str, Any]
    directory: Path


def probe(recipe: Recipe, grid: Grid, directory: Path, say: Callable[[str], None] = print) -> Probed:
    """Tries every classifier on the features of `recipe`'s backbone and leaves the best in `directory`, as a run whose
    head it is. The test images choose nothing: they are looked at with the winner alone.

    Raises:
        UserFault: where there are no validation images, or data, weights or hardware are not as the recipe needs them.
    """
    with claimed(directory):
        run = new_run(recipe, directory)
        with recorded(run):
            return _probed(run, grid, say)


def _probed(run: Run, grid: Grid, say: Callable[[str], None]) -> Probed:
    began = time.perf_counter()
    found = extracted(run.recipe)
    check_validation(found.samples.counts(), run.recipe.dataset.name)
    spent = f"computed in {found.seconds:.1f} s" if found.seconds else "from the cache"
    say(f"{found.values.shape[1]} features an image, {spent}")
    started = time.perf_counter()
    trials, winner = tried(found, grid, _device(run.recipe), say)
    trained_s = time.perf_counter() - started
    predictions = _predictions(found)
    metrics = metrics_by_split(predictions, found.samples.labels())
    seconds = {"wall_s": time.perf_counter() - began, "train_s": trained_s}
    metrics["timing"] = {name: round(value, 3) for name, value in {**seconds, "cache_s": found.seconds}.items()}
    metrics["timing"]["images_per_s"] = 0.0  # there is no epoch
    write_probe(run, found, grid, trials, winner, predictions, metrics)
    return Probed(trials, winner, metrics, run.directory)


def check_validation(counts: dict[str, int], dataset: str) -> None:
    """Raises UserFault where `counts`, images by split, have none to choose by."""
    if counts["val"] == 0:
        got = ", ".join(f"{count} {split}" for split, count in counts.items())
        fix = "dataset.val=10" if dataset == "captcha" else "dataset.fractions.val=0.15"
        raise UserFault("a probe chooses on validation images.", [Fault(f"dataset={dataset}", got, fix=fix)])


def tried(
    found: Extracted, grid: Grid, device: torch.device, say: Callable[[str], None] = print
) -> tuple[list[Trial], Trial]:
    """Every trial, and the chosen one, which `found.network`'s head now is."""
    labels, classes = found.samples.labels(), len(found.samples.classes)
    train, val = found.samples.of("train"), found.samples.of("val")
    scaling = scaling_of(found.values[train])
    seen, judged = (Vectors(scaling.applied(found.values[one]), labels[one]) for one in (train, val))
    width = found.values.shape[1]
    methods: dict[str, Callable[[], Iterable[Trial]]] = {
        "nearest centroid": lambda: [nearest_centroid(seen, judged, classes)],
        "k-NN": lambda: neighbours(seen, judged, classes),
        "logistic regression": lambda: logistic_regressions(seen, judged),
        "linear SVM": lambda: linear_svms(seen, judged),
        "linear heads": lambda: head_trials(seen, judged, classes, grid, found.images.seed, width, device),
    }
    trials: list[Trial] = []
    for name, method in methods.items():
        started, before = time.perf_counter(), len(trials)
        with threadpool_limits(torch.get_num_threads()):  # trainer.threads is meant for NumPy and SciPy too
            trials.extend(method())
        say(f"{name}: {len(trials) - before} tried in {time.perf_counter() - started:.1f} s")
    winner = chosen(trials)
    assert winner.linear is not None
    become(found.network.head, scaling.folded(winner.linear))
    return trials, winner


def become(head: nn.Module, linear: Linear) -> None:
    """Puts `linear` into the one layer of a linear `head`."""
    (layer,) = linear_layers(head)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(linear.weight))
        layer.bias.copy_(torch.from_numpy(linear.bias))


def _device(recipe: Recipe) -> torch.device:
    on_gpu = accelerator_for(recipe.trainer) == "gpu" and torch.cuda.is_available()
    return torch.device("cuda" if on_gpu else "cpu")


@torch.inference_mode()
def _predictions(found: Extracted) -> Predicted:
    head = found.network.cpu().eval().head
    places = {split: found.samples.of(split) for split in ("val", "test")}
    return {split: (head(torch.from_numpy(found.values[one])), torch.from_numpy(one)) for split, one in places.items()}
