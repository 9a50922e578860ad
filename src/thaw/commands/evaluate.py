"""`thaw evaluate RUN|CKPT`: a trained network on labelled images, from its checkpoint alone."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thaw.commands.table import Column, print_table
from thaw.commands.verbs import asks_for_help
from thaw.commands.words import CONFIG_DIR, own_presets, sorted_words
from thaw.config.faults import DONE, Fault, UserFault, nearest

if TYPE_CHECKING:
    from thaw.analysis.by_class import OfClass
    from thaw.trained.evaluation import Evaluation
    from thaw.trained.restore import Restored

SPLITS = ("test", "val", "train", "all")
SHOWN_CLASSES, SHOWN_PICTURES = 10, 32
METRICS = {
    "accuracy": "accuracy",
    "top5_accuracy": "top-5 accuracy",
    "macro_accuracy": "macro accuracy",
    "macro_f1": "macro F1",
    "ece": "calibration error",
    "loss": "loss",
}
HELP = """thaw evaluate RUN|CKPT [dataset=NAME] [dataset.KEY=VALUE ...] [split=SPLIT,...] [out=DIR] [--config-dir DIR]

  RUN|CKPT          a run directory, or a checkpoint of one; nothing else of the run is needed
  dataset...        another data set of the same classes, or where it lies now: dataset.root=DIR. Without a word it is
                    the checkpoint's own, cut into splits by the checkpoint's seed; so the numbers are those of the run
  split             test, val, train, or all images; test,val where nothing is said, as far as there are such images
  out=DIR           of the first split: metrics.json, per_class.csv, predictions.csv, confusion_matrix.png,
                    reliability.png and worst.jpg, the predictions furthest from their labels
  --config-dir DIR  presets of your own, as train.py takes them

    thaw evaluate outputs/RUN out=outputs/evaluation
    thaw evaluate best.ckpt dataset.root=DIR
    thaw evaluate best.ckpt dataset=folder dataset.root=DIR split=all

data.*, cache.mode, and trainer.batch_size, accelerator, precision, threads and test_time_augmentation can be set as for
train.py. Intervals are of 95 %. Exit status: 0, or 2 where there is something for you to change."""


def run(arguments: Sequence[str]) -> int:
    """Evaluates, says what was found, and returns the exit status.

    Raises:
        UserFault: for a file that is no checkpoint, wrong settings, or data that cannot be had or do not fit.
    """
    if asks_for_help(arguments):
        print(HELP)
        return DONE
    options, words = sorted_words(arguments, (CONFIG_DIR,), ())
    if not words:
        raise UserFault(
            "nothing was started.", [Fault("thaw evaluate", "nothing", "a run or checkpoint", "see --help")]
        )
    place, *settings = words
    own = dict(one.split("=", 1) for one in settings if one.startswith(("split=", "out=")))
    splits = _splits(own.get("split", "test,val"))
    from thaw.config.amended import amended
    from thaw.trained.evaluation import evaluations
    from thaw.trained.restore import restored
    from thaw.training.process import prepare

    checkpoint = Path(place).expanduser()
    trained = restored(checkpoint)
    changes = [one for one in settings if not one.startswith(("split=", "out="))]
    recipe = amended(trained.recipe, changes, own_presets(options))
    prepare(recipe.seed, recipe.trainer.deterministic, recipe.trainer.threads)
    asked = any(one.startswith("trainer.") for one in changes)
    trained = replace(trained, recipe=recipe).as_trained(recipe.trainer if asked else None)
    found = evaluations(trained, recipe, splits)
    metrics = {split: one.metrics() for split, one in found.items()}
    _say(found, metrics)
    if not changes and (record := checkpoint / "metrics.json").is_file():
        print(_compared(metrics, json.loads(record.read_text(encoding="utf-8"))))
    if own.get("out"):
        _write(Path(own["out"]).expanduser(), trained, next(iter(found.items())), metrics)
    return DONE


def _splits(text: str) -> list[str]:
    named = list(dict.fromkeys(text.split(",")))
    if wrong := [one for one in named if one not in SPLITS]:
        near = nearest(wrong[0], SPLITS)
        raise UserFault("nothing was started.", [Fault(f"split={text}", wrong[0], ", ".join(SPLITS), f"split={near}")])
    return named


def _say(found: Mapping[str, Evaluation], metrics: Mapping[str, Mapping[str, Any]]) -> None:
    columns = [Column("", keep=True), *(Column(f"{name}, {one['count']} images") for name, one in metrics.items())]
    rows = [[label, *(_told(one, key) for one in metrics.values())] for key, label in METRICS.items()]
    print_table(columns, rows)
    split, first = next(iter(found.items()))
    for name, one in found.items():
        if one.broken:
            print(f"{name}: left out, as they cannot be decoded: {len(one.broken)} ({', '.join(list(one.broken)[:5])})")
    _say_classes(split, first)
    _say_pairs(split, first)


def _told(metrics: Mapping[str, Any], key: str) -> str:
    interval = metrics.get(f"{key}_ci95")
    return f"{metrics[key]:.3f}" + (f"   {interval[0]:.3f} to {interval[1]:.3f}" if interval else "")


def _say_classes(split: str, found: Evaluation) -> None:
    rows = sorted((one for one in found.by_class() if one.count), key=lambda one: one.f1)[:SHOWN_CLASSES]
    columns = [Column("class"), Column("images", number=True), *(Column(one) for one in ("recall", "precision", "F1"))]
    title = f"\n{split}: the {len(rows)} classes with the lowest F1" if len(rows) == SHOWN_CLASSES else f"\n{split}"
    shares = (("recall", "recall_ci95"), ("precision", "precision_ci95"), ("f1", "f1_ci95"))
    print_table(columns, [[one.name, str(one.count), *(_share(one, *pair) for pair in shares)] for one in rows], title)


def _share(row: OfClass, key: str, interval: str) -> str:
    low, high = getattr(row, interval)
    return f"{getattr(row, key):.3f}   {low:.3f} to {high:.3f}"


def _say_pairs(split: str, found: Evaluation) -> None:
    from thaw.analysis.by_class import confused

    pairs = confused(found.confusion, found.samples.classes)
    if not pairs:
        print(f"\n{split}: every prediction is right")
        return
    columns = [Column("label"), Column("taken for"), Column("images", number=True), Column("of the label", number=True)]
    rows = [[one.label, one.prediction, str(one.count), f"{one.share:.1%}"] for one in pairs]
    print_table(columns, rows, f"\n{split}: most confused")


def _compared(metrics: Mapping[str, Any], recorded: Mapping[str, Any]) -> str:
    """Of what both have."""
    keys = [(split, key) for split in metrics if split in recorded for key in metrics[split] if key in recorded[split]]
    apart = [f"{split} {key}" for split, key in keys if metrics[split][key] != recorded[split][key]]
    furthest = max((_distance(metrics[split][key], recorded[split][key]) for split, key in keys), default=0.0)
    if not keys:
        return ""
    told = f"{', '.join(apart)} differ, by {furthest:.2g} at most" if apart else "the same numbers"
    return f"\nbeside the run's own metrics.json: {told}"


def _distance(one: Any, other: Any) -> float:
    pairs = zip(one, other, strict=True) if isinstance(one, list) else [(one, other)]
    return float(max(abs(left - right) for left, right in pairs))


def _write(folder: Path, trained: Restored, evaluated: tuple[str, Evaluation], metrics: Mapping[str, Any]) -> None:
    import torch

    from thaw.analysis.plots import save_confusion
    from thaw.analysis.reliability_plot import save_reliability
    from thaw.training.files import write_json, write_text
    from thaw.training.predictions_file import write_predictions

    split, found = evaluated
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "metrics.json", metrics)
    write_text(folder / "per_class.csv", _as_csv(found.by_class()))
    write_predictions(folder / "predictions.csv", found.samples, found.logits, torch.from_numpy(found.positions))
    count, error, confusion = len(found.labels), metrics[split]["ece"], found.confusion
    title = f"{confusion.trace()} of {count} {split} images right"
    save_confusion(confusion, found.samples.classes, title, folder / "confusion_matrix.png")
    title = f"{count} {split} images, calibration error {error:.3f}"
    save_reliability(found.reliability(), title, folder / "reliability.png")
    _draw_worst(folder / "worst.jpg", trained, found)
    print(f"\nof {split}: everything is in {folder}")


def _as_csv(rows: Sequence[OfClass]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = (one.name.removesuffix("_ci95") if one.name != "name" else "class" for one in fields(rows[0]))
    header = list(dict.fromkeys(names))
    shares = header[header.index("recall") :]
    writer.writerow([*header[: -len(shares)], *(f"{one}{end}" for one in shares for end in ("", "_low", "_high"))])
    writer.writerows([*_flat(astuple(row))] for row in rows)
    return text.getvalue()


def _flat(values: Sequence[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, tuple):
            yield from (f"{one:.6g}" for one in value)
        else:
            yield f"{value:.6g}" if isinstance(value, float) else value


def _draw_worst(file: Path, trained: Restored, found: Evaluation) -> None:
    from thaw.analysis.sample_grid import save_samples
    from thaw.analysis.worst import titled, worst_first
    from thaw.trained.prediction import squares

    chosen = worst_first(found.logits, found.labels, SHOWN_PICTURES)
    samples = [found.samples.samples[found.positions[one]] for one in chosen]
    titles, wrong = titled(found.logits[chosen], [one.label for one in samples], found.samples.classes)
    pixels = squares([found.samples.root / one.path for one in samples], trained.preprocessing)
    save_samples(pixels, titles, wrong, file)
