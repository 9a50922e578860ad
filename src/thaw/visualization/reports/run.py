"""A run on one page that needs nothing else: what was trained on what and how, and what came of it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from thaw.config.schema import Recipe
from thaw.data.preprocessing import Preprocessing
from thaw.metrics.per_class import compute_class_metrics, find_confused_pairs
from thaw.models.cost import StageCost
from thaw.models.network import Network, Normalize
from thaw.runs.history import selection_score
from thaw.runs.predictions import TestPredictions
from thaw.runs.run import Run
from thaw.strategy.plan import build_plan_from_dicts
from thaw.visualization.interpret.grad_cam import GradCam, grad_cam, upsample_maps
from thaw.visualization.reports.console import HEADINGS, build_phase_tables
from thaw.visualization.reports.html import encode_data_uri, encode_thumbnail, render_template

MAX_IMAGES_PER_ROW = 8
CAM_SIDE = 168  # pixels on the page
Rows = list[tuple[str, str]]
METRIC_LABELS = {
    "accuracy": "accuracy",
    "accuracy_ci95": "95 % interval",
    "top5_accuracy": "top-5 accuracy",
    "macro_accuracy": "macro accuracy: mean over the classes",
    "macro_f1": "macro F1",
    "loss": "loss",
    "count": "images",
}


def render_run_report(run: Run, model: ExplainedModel) -> str:
    """Return the HTML page of a finished run. `model` holds the network of its best epoch. If the test images cannot be
    read (`model.load_pixels` raises OSError), the page says so in place of the pictures."""
    recipe, record, metrics = run.recipe, run.record, run.metrics
    test_predictions = run.read_test_predictions(model.classes)
    confusion, history = test_predictions.compute_confusion_matrix(), run.read_history()
    plots = {path.stem: encode_data_uri(path.read_bytes()) for path in sorted(run.plots_directory.glob("*.png"))}
    return render_template(
        "run_report.html",
        name=run.name,
        dataset=recipe.dataset.name,
        backbone=recipe.backbone.name,
        strategy="probe" if run.is_probe else recipe.strategy.name,
        metrics=metrics,
        result_sentences=list(_describe_results(metrics, record, test_predictions, history)),
        notes=recipe.notes,
        metric_rows=list(_build_metric_rows(metrics)),
        plots=plots,
        confused_pairs=find_confused_pairs(confusion, model.classes),
        class_metrics=compute_class_metrics(confusion, model.classes),
        **_build_image_section(model, test_predictions),
        headings=HEADINGS,
        phases=list(
            build_phase_tables([item.facts for item in model.stages], build_plan_from_dicts(record.get("plan", ())))
        ),
        parameters=record["parameters"],
        features=record.get("features", []),
        stages=[item.facts.name for item in model.stages],
        data=record["data"],
        groups=_build_groups(record, recipe, metrics, model),
        config=run.recipe_text,
        commands=_build_command_rows(run.directory, record),
    )


def _describe_results(
    metrics: Mapping[str, Any],
    record: Mapping[str, Any],
    test_predictions: TestPredictions,
    history: list[dict[str, str]],
) -> Iterator[str]:
    """What the numbers mean, in sentences."""
    test, count = metrics["test"], len(test_predictions.labels)
    low, high = test["accuracy_ci95"]
    yield (
        f"Of {count:,} test images, which chose nothing in this run, the network names {int(test_predictions.correct.sum()):,} "
        f"right: {test['accuracy']:.1%}. Of other images of this kind it would name between {low:.1%} and {high:.1%} "
        "right, with 95 % confidence."
    )
    class_counts = np.bincount(test_predictions.labels, minlength=len(test_predictions.classes))
    majority_share, majority_class = class_counts.max() / count, test_predictions.classes[int(class_counts.argmax())]
    verdict = "better than" if low > majority_share else "not clearly better than"
    yield f"That is {verdict} answering {majority_class} to every image, which would be right for {majority_share:.1%}."
    if "probe" in record:
        yield f"Its head is the best of many that were tried on frozen features: {record['probe']['method']}."
    if history and "val" in metrics:
        best_row = max(history, key=lambda row: selection_score(float(row["val_accuracy"]), float(row["val_loss"])))
        yield (
            f"Epoch {best_row['epoch']} of {len(history)} had the best validation accuracy, "
            f"{float(best_row['val_accuracy']):.1%} of {metrics['val']['count']:,} images; its weights are the ones kept."
        )
    elif history:
        yield "Without validation images there was nothing to choose an epoch by: the last one is kept."


def _build_metric_rows(metrics: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    for key, label in METRIC_LABELS.items():
        yield label, [_format_value(metrics[split][key]) for split in ("test", "val") if split in metrics]


def _format_value(value: Any) -> str:
    if isinstance(value, list):
        return " to ".join(f"{bound:.3f}" for bound in value)
    return f"{value:.3f}" if isinstance(value, float) else f"{value:,}"


def _build_image_section(model: ExplainedModel, test_predictions: TestPredictions) -> dict[str, Any]:
    """Rows of test images by what they show, and Grad-CAM of the first ones of each."""
    correct = test_predictions.correct
    indices_by_title = {
        "Most confident mistakes": test_predictions.most_confident(~correct, MAX_IMAGES_PER_ROW),
        "Least confident correct predictions": test_predictions.least_confident(correct, MAX_IMAGES_PER_ROW),
        "Most confident correct predictions": test_predictions.most_confident(correct, MAX_IMAGES_PER_ROW),
    }
    indices = list(dict.fromkeys(index for row in indices_by_title.values() for index in row))
    try:
        pixels = dict(
            zip(indices, model.load_pixels([test_predictions.paths[index] for index in indices]), strict=True)
        )
    except OSError as error:
        return {"example_rows": {}, "cams": [], "cam_stage": "", "no_images_reason": str(error), "no_cams_reason": ""}
    rows = {
        title: [_describe_image(test_predictions, image_index, pixels[image_index]) for image_index in row]
        for title, row in indices_by_title.items()
        if row
    }
    cams, stage, reason = _compute_cams(
        model, test_predictions, pixels, _interleave(list(indices_by_title.values())[::2])[: model.max_images]
    )
    return {"example_rows": rows, "cams": cams, "cam_stage": stage, "no_images_reason": "", "no_cams_reason": reason}


def _interleave(rows: list[list[int]]) -> list[int]:
    max_length = max(map(len, rows))
    return [row[index] for index in range(max_length) for row in rows if index < len(row)]


def _describe_image(
    test_predictions: TestPredictions, index: int, pixels: np.ndarray, side: int = 128
) -> dict[str, Any]:
    label, predicted_label = (
        test_predictions.classes[int(class_indices[index])]
        for class_indices in (test_predictions.labels, test_predictions.predictions)
    )
    return {
        "image": encode_thumbnail(pixels, side),
        "label": label,
        "prediction": predicted_label,
        "probability": float(test_predictions.probabilities[index]),
        "path": test_predictions.paths[index].encode("utf-8", "replace").decode(),
    }


def _compute_cams(
    model: ExplainedModel, test_predictions: TestPredictions, pixels: Mapping[int, np.ndarray], indices: list[int]
) -> tuple[list[dict[str, Any]], str, str]:
    """By picture, what spoke for the answer, and for the label where that is another; the stage; else why not."""
    targets = np.stack([test_predictions.predictions[indices], test_predictions.labels[indices]], 1)
    try:
        grad_cam = compute_grad_cam(model, np.stack([pixels[index] for index in indices]), targets)
    except ValueError as error:
        return [], "", str(error)
    cams = []
    for index, maps in zip(indices, grad_cam.maps, strict=True):
        image_description = _describe_image(test_predictions, index, pixels[index], CAM_SIDE)
        shown_maps = maps if image_description["label"] != image_description["prediction"] else maps[:1]
        overlays = [
            encode_thumbnail(overlay_cam(pixels[index], class_map, CAM_SIDE), CAM_SIDE) for class_map in shown_maps
        ]
        cams.append(
            {
                **image_description,
                "prediction_cam": overlays[0],
                "label_cam": overlays[1] if len(overlays) > 1 else None,
            }
        )
    return cams, grad_cam.stage, ""


def _build_groups(
    record: Mapping[str, Any], recipe: Recipe, metrics: Mapping[str, Any], model: ExplainedModel
) -> dict[str, Rows]:
    method_rows = _build_probe_rows(record["probe"]) if "probe" in record else _build_training_rows(recipe)
    return {
        "Data and source": _build_data_rows(record, recipe, model),
        "How it was trained": method_rows,
        "Time": _build_timing_rows(metrics["timing"], "probe" in record),
        "Environment": _build_environment_rows(record),
    }


def _build_data_rows(record: Mapping[str, Any], recipe: Recipe, model: ExplainedModel) -> Rows:
    data, source, preprocessing = record["data"], record["source"], model.preprocessing
    skipped_rows = [("broken, left out", f"{len(data['skipped'])}")] if data["skipped"] else []
    problem_rows = [(problem["kind"], f"{problem['count']}") for problem in data["problems"] if "count" in problem]
    return [
        ("data set", f"{recipe.dataset.name}, {data['classes']} classes"),
        *((f"{split} images", f"{count:,}") for split, count in data["images"].items()),
        *(skipped_rows or []),
        *problem_rows,
        ("fingerprint", data["fingerprint"]),
        ("backbone", f"{recipe.backbone.library} {recipe.backbone.name}"),
        ("source weights", str(source["name"]) if source else "none: random"),
        *([("SHA-256", str(source["hash"]))] if source and source.get("hash") else []),
        (
            "image size",
            f"{preprocessing.size} x {preprocessing.size}, cut from the centre after resizing to {preprocessing.resize}",
        ),
    ]


def _build_training_rows(recipe: Recipe) -> Rows:
    trainer, optimizer = recipe.trainer, recipe.optimizer
    augmentation = {name: value for name, value in recipe.augment.model_dump().items() if value}
    return [
        ("strategy", f"{recipe.strategy.name}, from {recipe.strategy.init} weights"),
        ("head", recipe.head.kind),
        ("optimizer", f"{optimizer.name}, learning rate {optimizer.learning_rate:g}"),
        ("weight decay", f"{optimizer.weight_decay:g}"),
        ("schedule", recipe.scheduler.name),
        ("epochs, batch size", f"{trainer.epochs}, {trainer.batch_size}"),
        ("augmentation", ", ".join(augmentation) or "none"),
        ("seed", str(recipe.seed)),
    ]


def _build_probe_rows(probe: Mapping[str, Any]) -> Rows:
    setting = ", ".join(f"{name} {value}" for name, value in probe["setting"].items())
    return [("method", str(probe["method"])), ("setting", setting or "none"), ("all that was tried", "probe.csv")]


def _build_timing_rows(timing: Mapping[str, float], is_probe: bool) -> Rows:
    rows = [("in all, with reading and testing", f"{timing['wall_s']:.1f} s")]
    rows.append(("trying classifiers" if is_probe else "epochs", f"{timing['train_s']:.1f} s"))
    rows += [("computing frozen features", f"{timing['cache_s']:.1f} s")] if timing["cache_s"] else []
    return rows + ([("in training", f"{timing['images_per_s']:,.0f} images/s")] if timing["images_per_s"] else [])


def _build_environment_rows(record: Mapping[str, Any]) -> Rows:
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


def _build_command_rows(directory: Path, record: Mapping[str, Any]) -> Rows:
    quoted_directory = shlex.quote(str(directory))
    return [
        ("the same run again", str(record["command"])),
        ("measure it on its test images, or others", f"thaw evaluate {quoted_directory}"),
        ("what it says of a picture", f"thaw predict {quoted_directory} IMAGE"),
        ("what it sees in a picture", f"thaw explain {quoted_directory} IMAGE"),
        ("its curves in TensorBoard", f"thaw dashboard {quoted_directory}"),
    ]


MAX_IMAGES, MIN_IMAGES = 4, 2
MAX_MULTIPLY_ADDS = 1.5e9  # multiply-adds for all pictures: Lite0 at 224 pixels takes 0.4e9 a picture, ResNet-50 4.1e9
COLORMAP = "inferno"


@dataclass(frozen=True)
class ExplainedModel:
    """A trained network in evaluation mode, on the CPU, and what belongs to it. `pixels` gives uint8 [n, size, size, 3]
    of test images by path, as the network sees them before they are normalised. `unseen` says why the network cannot be
    looked into, if it cannot."""

    network: Network
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    stages: Sequence[StageCost]
    load_pixels: Callable[[Sequence[str]], np.ndarray]
    unavailable_reason: str = ""

    @property
    def max_images(self) -> int:
        """Of how many pictures Grad-CAM costs little."""
        return max(
            MIN_IMAGES, min(MAX_IMAGES, int(MAX_MULTIPLY_ADDS / sum(stage.multiply_adds for stage in self.stages)))
        )


def compute_grad_cam(model: ExplainedModel, pixels: np.ndarray, targets: np.ndarray) -> GradCam:
    """Grad-CAM of uint8 [n, size, size, 3], as `subject.pixels` gives them, for `targets`, int64 [n, k].

    Raises:
        ValueError: where no stage puts out maps, or it cannot be looked into.
    """
    if model.unavailable_reason:
        raise ValueError(model.unavailable_reason)
    images = Normalize(model.preprocessing)(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    images = images.to(next(model.network.parameters()).dtype)  # trainer.precision=64-true
    return grad_cam(model.network, images, torch.from_numpy(targets))


def overlay_cam(pixels: np.ndarray, cam: Tensor, side: int) -> np.ndarray:
    """uint8 [side, side, 3]: the square picture, under the colours of `cam`, [any, any] from 0 to 1."""
    heat = upsample_maps(cam[None, None], side)[0, 0].numpy()
    colours = (matplotlib.colormaps[COLORMAP](np.arange(256))[:, :3] * 255).astype(np.float32)[
        (heat * 255).astype(np.uint8)
    ]
    opacity = (0.25 + 0.4 * heat)[..., None]
    image = np.asarray(Image.fromarray(pixels).resize((side, side)), dtype=np.float32)
    blended: np.ndarray = (image + (colours - image) * opacity).round().astype(np.uint8)
    return blended
