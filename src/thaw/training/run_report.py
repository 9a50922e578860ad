"""A run on one page that needs nothing else: what was trained on what and how, and what came of it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from thaw.analysis.by_class import by_class, confused
from thaw.analysis.looks import Subject, looked_at, overlaid
from thaw.analysis.page import data_uri, rendered, thumb
from thaw.analysis.plan_table import HEADINGS, phase_tables
from thaw.analysis.tested import Tested, read_tested
from thaw.config.schema import Recipe
from thaw.strategy.plan import plan_of_plain
from thaw.training.history_file import read_history
from thaw.training.rank import rank_of
from thaw.training.run import RECORD

PICTURES = 8
CAM_SIDE = 168  # pixels on the page
Rows = list[tuple[str, str]]
METRICS = {
    "accuracy": "accuracy",
    "accuracy_ci95": "95 % interval",
    "top5_accuracy": "top-5 accuracy",
    "macro_accuracy": "macro accuracy: mean over the classes",
    "macro_f1": "macro F1",
    "loss": "loss",
    "count": "images",
}


def run_page(directory: Path, recipe: Recipe, subject: Subject) -> str:
    """The page, from what a run that is done has left in `directory`, and the network of its best epoch. Where the test
    images are not at hand (`subject.pixels` raises OSError) it says so in the place of pictures."""
    record, metrics = (json.loads((directory / name).read_text("utf-8")) for name in (RECORD, "metrics.json"))
    tested = read_tested(directory / "predictions.csv", subject.classes)
    confusion, history = tested.confusion(), read_history(directory / "history.csv")
    plots = {one.stem: data_uri(one.read_bytes()) for one in sorted((directory / "plots").glob("*.png"))}
    return rendered(
        "run_report.html",
        name=directory.name,
        dataset=recipe.dataset.name,
        backbone=recipe.backbone.name,
        strategy="probe" if "probe" in record else recipe.strategy.name,
        metrics=metrics,
        told=list(_told(metrics, record, tested, history)),
        notes=recipe.notes,
        metric_rows=list(_metric_rows(metrics)),
        plots=plots,
        pairs=confused(confusion, subject.classes),
        classes=by_class(confusion, subject.classes),
        **_pictures(subject, tested),
        headings=HEADINGS,
        phases=list(phase_tables([one.facts for one in subject.stages], plan_of_plain(record.get("plan", ())))),
        parameters=record["parameters"],
        features=record.get("features", []),
        stages=[one.facts.name for one in subject.stages],
        data=record["data"],
        groups=_groups(record, recipe, metrics, subject),
        config=(directory / "config.yaml").read_text("utf-8", errors="replace"),
        commands=_commands(directory, record),
    )


def _told(
    metrics: Mapping[str, Any], record: Mapping[str, Any], tested: Tested, history: list[dict[str, str]]
) -> Iterator[str]:
    """What the numbers mean, in sentences."""
    test, count = metrics["test"], len(tested.labels)
    low, high = test["accuracy_ci95"]
    yield (
        f"Of {count:,} test images, which chose nothing in this run, the network names {int(tested.right.sum()):,} "
        f"right: {test['accuracy']:.1%}. Of other images of this kind it would name between {low:.1%} and {high:.1%} "
        "right, with 95 % confidence."
    )
    frequent = np.bincount(tested.labels, minlength=len(tested.classes))
    chance, name = frequent.max() / count, tested.classes[int(frequent.argmax())]
    beats = "better than" if low > chance else "not clearly better than"
    yield f"That is {beats} answering {name} to every image, which would be right for {chance:.1%}."
    if "probe" in record:
        yield f"Its head is the best of many that were tried on frozen features: {record['probe']['method']}."
    if history and "val" in metrics:
        best = max(history, key=lambda row: rank_of(float(row["val_accuracy"]), float(row["val_loss"])))
        yield (
            f"Epoch {best['epoch']} of {len(history)} had the best validation accuracy, "
            f"{float(best['val_accuracy']):.1%} of {metrics['val']['count']:,} images; its weights are the ones kept."
        )
    elif history:
        yield "Without validation images there was nothing to choose an epoch by: the last one is kept."


def _metric_rows(metrics: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    for key, label in METRICS.items():
        yield label, [_number(metrics[split][key]) for split in ("test", "val") if split in metrics]


def _number(value: Any) -> str:
    if isinstance(value, list):
        return " to ".join(f"{one:.3f}" for one in value)
    return f"{value:.3f}" if isinstance(value, float) else f"{value:,}"


def _pictures(subject: Subject, tested: Tested) -> dict[str, Any]:
    """Rows of test images by what they show, and Grad-CAM of the first ones of each."""
    right = tested.right
    chosen = {
        "Surest mistakes": tested.surest(~right, PICTURES),
        "Right, but least sure": tested.least_sure(right, PICTURES),
        "Surest and right": tested.surest(right, PICTURES),
    }
    places = list(dict.fromkeys(place for row in chosen.values() for place in row))
    try:
        pixels = dict(zip(places, subject.pixels([tested.paths[place] for place in places]), strict=True))
    except OSError as error:
        return {"rows": {}, "cams": [], "cam_stage": "", "no_pictures": str(error), "no_cams": ""}
    rows = {title: [_shown(tested, one, pixels[one]) for one in row] for title, row in chosen.items() if row}
    cams, stage, reason = _cams(subject, tested, pixels, _alternating(list(chosen.values())[::2])[: subject.affordable])
    return {"rows": rows, "cams": cams, "cam_stage": stage, "no_pictures": "", "no_cams": reason}


def _alternating(rows: list[list[int]]) -> list[int]:
    longest = max(map(len, rows))
    return [row[place] for place in range(longest) for row in rows if place < len(row)]


def _shown(tested: Tested, place: int, pixels: np.ndarray, side: int = 128) -> dict[str, Any]:
    label, guess = (tested.classes[int(one[place])] for one in (tested.labels, tested.guesses))
    return {
        "picture": thumb(pixels, side),
        "label": label,
        "guess": guess,
        "probability": float(tested.probabilities[place]),
        "path": tested.paths[place].encode("utf-8", "replace").decode(),
    }


def _cams(
    subject: Subject, tested: Tested, pixels: Mapping[int, np.ndarray], places: list[int]
) -> tuple[list[dict[str, Any]], str, str]:
    """By picture, what spoke for the answer, and for the label where that is another; the stage; else why not."""
    targets = np.stack([tested.guesses[places], tested.labels[places]], 1)
    try:
        found = looked_at(subject, np.stack([pixels[place] for place in places]), targets)
    except ValueError as error:
        return [], "", str(error)
    cams = []
    for place, maps in zip(places, found.maps, strict=True):
        shown = _shown(tested, place, pixels[place], CAM_SIDE)
        wanted = maps if shown["label"] != shown["guess"] else maps[:1]
        over = [thumb(overlaid(pixels[place], one, CAM_SIDE), CAM_SIDE) for one in wanted]
        cams.append({**shown, "for_guess": over[0], "for_label": over[1] if len(over) > 1 else None})
    return cams, found.stage, ""


def _groups(record: Mapping[str, Any], recipe: Recipe, metrics: Mapping[str, Any], subject: Subject) -> dict[str, Rows]:
    how = _how_probed(record["probe"]) if "probe" in record else _how_trained(recipe)
    return {
        "Data and source": _what(record, recipe, subject),
        "How it was trained": how,
        "Time": _time(metrics["timing"], "probe" in record),
        "Environment": _environment(record),
    }


def _what(record: Mapping[str, Any], recipe: Recipe, subject: Subject) -> Rows:
    data, source, view = record["data"], record["source"], subject.preprocessing
    skipped = [("broken, left out", f"{len(data['skipped'])}")] if data["skipped"] else []
    problems = [(one["kind"], f"{one['count']}") for one in data["problems"] if "count" in one]
    return [
        ("data set", f"{recipe.dataset.name}, {data['classes']} classes"),
        *((f"{split} images", f"{count:,}") for split, count in data["images"].items()),
        *(skipped or []),
        *problems,
        ("fingerprint", data["fingerprint"]),
        ("backbone", f"{recipe.backbone.library} {recipe.backbone.name}"),
        ("source weights", str(source["name"]) if source else "none: random"),
        *([("SHA-256", str(source["hash"]))] if source and source.get("hash") else []),
        ("image size", f"{view.size} x {view.size}, cut from the centre after resizing to {view.resize}"),
    ]


def _how_trained(recipe: Recipe) -> Rows:
    trainer, optimizer = recipe.trainer, recipe.optimizer
    augmented = {name: value for name, value in recipe.augment.model_dump().items() if value}
    return [
        ("strategy", f"{recipe.strategy.name}, from {recipe.strategy.start} weights"),
        ("head", recipe.head.kind),
        ("optimizer", f"{optimizer.name}, learning rate {optimizer.learning_rate:g}"),
        ("weight decay", f"{optimizer.weight_decay:g}"),
        ("schedule", recipe.scheduler.name),
        ("epochs, batch size", f"{trainer.epochs}, {trainer.batch_size}"),
        ("augmentation", ", ".join(augmented) or "none"),
        ("seed", str(recipe.seed)),
    ]


def _how_probed(probe: Mapping[str, Any]) -> Rows:
    setting = ", ".join(f"{name} {value}" for name, value in probe["setting"].items())
    return [("method", str(probe["method"])), ("setting", setting or "none"), ("all that was tried", "probe.csv")]


def _time(timing: Mapping[str, float], is_probe: bool) -> Rows:
    rows = [("in all, with reading and testing", f"{timing['wall_s']:.1f} s")]
    rows.append(("trying classifiers" if is_probe else "epochs", f"{timing['train_s']:.1f} s"))
    rows += [("computing frozen features", f"{timing['cache_s']:.1f} s")] if timing["cache_s"] else []
    return rows + ([("in training", f"{timing['images_per_s']:,.0f} images/s")] if timing["images_per_s"] else [])


def _environment(record: Mapping[str, Any]) -> Rows:
    hardware, git = record["hardware"], record["git"]
    revision = f"{git['commit'][:12]}{', with changes' if git['changed'] else ''}" if git else "not in a checkout"
    return [
        ("started", str(record["started"])),
        *([("resumed", ", ".join(record["resumed"]))] if record.get("resumed") else []),
        ("processor", f"{hardware['cpu']}, {hardware['cores']} cores"),
        *([("GPUs", ", ".join(hardware["gpus"]))] if hardware["gpus"] else []),
        ("platform", str(hardware["platform"])),
        ("revision of thaw", revision),
        *((name, str(version)) for name, version in record["versions"].items()),
    ]


def _commands(directory: Path, record: Mapping[str, Any]) -> Rows:
    place = shlex.quote(str(directory))
    return [
        ("the same run again", str(record["command"])),
        ("measure it on its test images, or others", f"thaw evaluate {place}"),
        ("what it says of a picture", f"thaw predict {place} IMAGE"),
        ("what it sees in a picture", f"thaw explain {place} IMAGE"),
        ("its curves in TensorBoard", f"thaw dashboard {place}"),
    ]
