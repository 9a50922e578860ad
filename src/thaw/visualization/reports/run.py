"""The HTML report of a run: data, training, results and environment on one page in one file."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from thaw.system.portable import shorten_path
from thaw.visualization.interpret.grad_cam import GradCam, grad_cam, upsample_maps
from thaw.visualization.reports.console import HEADINGS, build_phase_tables, describe_leaks, get_leaks
from thaw.visualization.reports.html import encode_data_uri, encode_thumbnail, render_template

MAX_IMAGES_PER_ROW = 8
CAM_SIDE = 168  # pixels on the page
MAX_CLASSES_BESIDE = 15  # with more classes the names in a confusion matrix of half the page are too small to read
Rows = list[tuple[str, str]]
METRIC_LABELS = {
    "accuracy": "accuracy",
    "top5_accuracy": "top-5 accuracy",
    "macro_accuracy": "macro (balanced) accuracy: mean over the classes",
    "macro_f1": "macro F1",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "kappa": "Cohen's kappa",
    "ece": "calibration error",
    "loss": "loss",
    "count": "images",
    "groups": "groups of images",
}
MAX_IMAGES, MIN_IMAGES = 4, 2
MAX_MULTIPLY_ADDS = 1.5e9  # for all images; EfficientNet-Lite0 at 224 pixels takes 0.4e9 per image, ResNet-50 4.1e9
COLORMAP = "inferno"


def render_run_report(run: Run, model: ExplainedModel) -> str:
    """Return the HTML page of a finished run. `model` holds the network of its best epoch. If the test images cannot be
    read (`model.load_pixels` raises OSError), the page says so in place of the images."""
    test_predictions = run.read_test_predictions(model.classes)
    confusion = test_predictions.compute_confusion_matrix()
    return render_template(
        "run_report.html",
        **_build_overview(run),
        result_sentences=list(_describe_results(run, test_predictions)),
        confused_pairs=find_confused_pairs(confusion, model.classes),
        class_metrics=compute_class_metrics(confusion, model.classes),
        **_build_image_section(model, test_predictions),
        **_build_plan_section(run, model),
        groups=_build_groups(run, model),
        commands=_build_command_rows(run),
    )


def _build_overview(run: Run) -> dict[str, Any]:
    recipe, metrics = run.recipe, run.metrics
    return {
        "name": run.name,
        "dataset": recipe.dataset.name,
        "backbone": recipe.backbone.name,
        "strategy": "probe" if run.is_probe else recipe.strategy.name,
        "notes": recipe.notes,
        "metrics": metrics,
        "metric_rows": list(_build_metric_rows(metrics)),
        "leaks": describe_leaks(get_leaks(run.record), metrics),
        "plots": {path.stem: encode_data_uri(path.read_bytes()) for path in sorted(run.plots_directory.glob("*.png"))},
        "parameters": run.record["parameters"],
        "data": run.record["data"],
        "is_wide_confusion": run.record["data"]["classes"] > MAX_CLASSES_BESIDE,
        "recipe_text": run.recipe_text,
    }


def _build_plan_section(run: Run, model: ExplainedModel) -> dict[str, Any]:
    facts = [cost.facts for cost in model.stages]
    plan = build_plan_from_dicts(run.record.get("plan", ()))
    return {
        "headings": HEADINGS,
        "phases": list(build_phase_tables(facts, plan)),
        "features": run.record.get("features", []),
        "stages": [stage.name for stage in facts],
    }


def _describe_results(run: Run, test_predictions: TestPredictions) -> Iterator[str]:
    """Yield sentences that explain the numbers."""
    yield from _describe_test_accuracy(run.metrics["test"], test_predictions)
    if num_groups := run.metrics["test"].get("groups"):
        yield (
            f"The test images belong to {num_groups:,} groups. Intervals resample groups instead of images, because "
            "images of one group resemble each other."
        )
    if run.is_probe:
        yield f"Its head is the best of many that were fitted to frozen features: {run.record['probe']['method']}."
    rows = run.read_history()
    if rows and "val" in run.metrics:
        best_row = max(rows, key=lambda row: selection_score(float(row["val_accuracy"]), float(row["val_loss"])))
        yield (
            f"Epoch {best_row['epoch']} of {len(rows)} had the best validation accuracy, "
            f"{float(best_row['val_accuracy']):.1%} of {run.metrics['val']['count']:,} images; the checkpoint is that "
            "of this epoch."
        )
    elif rows:
        yield "The checkpoint is that of the last epoch: there are no validation images to choose an epoch by."


def _describe_test_accuracy(test_metrics: Mapping[str, Any], test_predictions: TestPredictions) -> Iterator[str]:
    num_images, num_correct = len(test_predictions.labels), int(test_predictions.correct.sum())
    low, high = test_metrics["accuracy_ci95"]
    yield (
        f"The network classifies {num_correct:,} of {num_images:,} test images correctly: "
        f"{test_metrics['accuracy']:.1%}. These images chose nothing in this run. On other images of the same kind the "
        f"accuracy is between {low:.1%} and {high:.1%}, with 95 % confidence."
    )
    class_counts = np.bincount(test_predictions.labels, minlength=len(test_predictions.classes))
    majority_class = test_predictions.classes[int(class_counts.argmax())]
    majority_fraction = class_counts.max() / num_images
    verdict = "better than" if low > majority_fraction else "not clearly better than"
    yield (
        f"That is {verdict} predicting {majority_class} for every image, which is correct for {majority_fraction:.1%} "
        "of them."
    )


def _build_metric_rows(metrics: Mapping[str, Any]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Yield the label of each metric, and its value and interval as text for test and val; runs of older versions lack
    some metrics."""
    for key, label in METRIC_LABELS.items():
        if key in metrics["test"]:
            yield label, [_format_metric(metrics[split], key) for split in ("test", "val") if split in metrics]


def _format_metric(split_metrics: Mapping[str, Any], key: str) -> tuple[str, str]:
    """Return the value and its interval, such as "0.953" and "0.911 to 0.976"; the latter is empty if there is none."""
    value, interval = split_metrics.get(key), split_metrics.get(f"{key}_ci95")
    if value is None:
        return "-", ""
    text = f"{value:.3f}" if isinstance(value, float) else f"{value:,}"
    return text, f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else ""


def _build_image_section(model: ExplainedModel, test_predictions: TestPredictions) -> dict[str, Any]:
    """Return rows of test images, and Grad-CAM of the most confident ones."""
    correct = test_predictions.correct
    indices_by_title = {
        "Most confident mistakes": test_predictions.most_confident(~correct, MAX_IMAGES_PER_ROW),
        "Least confident correct predictions": test_predictions.least_confident(correct, MAX_IMAGES_PER_ROW),
        "Most confident correct predictions": test_predictions.most_confident(correct, MAX_IMAGES_PER_ROW),
    }
    indices = list(dict.fromkeys(index for row in indices_by_title.values() for index in row))
    try:
        images = model.load_pixels([test_predictions.paths[index] for index in indices])
    except OSError as error:
        return {"example_rows": {}, "cams": [], "cam_stage": "", "no_images_reason": str(error), "no_cams_reason": ""}
    pixels = dict(zip(indices, images, strict=True))
    rows = {
        title: [_describe_image(test_predictions, index, pixels[index]) for index in row]
        for title, row in indices_by_title.items()
        if row
    }
    confident_indices = _interleave(list(indices_by_title.values())[::2])[: model.max_images]
    cams, stage, reason = _compute_cams(model, test_predictions, pixels, confident_indices)
    return {"example_rows": rows, "cams": cams, "cam_stage": stage, "no_images_reason": "", "no_cams_reason": reason}


def _interleave(rows: list[list[int]]) -> list[int]:
    """Return the first of each row, then the second of each, ..."""
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
    """Return for each image its Grad-CAM for the prediction and, if that is wrong, for the label; then the stage, and
    the reason if there are none."""
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


def _build_groups(run: Run, model: ExplainedModel) -> dict[str, Rows]:
    method_rows = _build_probe_rows(run) if run.is_probe else _build_training_rows(run.recipe)
    return {
        "Data and pretrained weights": _build_data_rows(run.record, run.recipe, model),
        "Training": method_rows,
        "Time": _build_timing_rows(run.metrics["timing"], run.is_probe),
        "Environment": _build_environment_rows(run.record),
    }


def _build_data_rows(record: Mapping[str, Any], recipe: Recipe, model: ExplainedModel) -> Rows:
    data, source, preprocessing = record["data"], record.get("source"), model.preprocessing
    skipped, problems = data.get("skipped"), data.get("problems", [])
    skipped_rows = [("unreadable, left out", f"{len(skipped)}")] if skipped else []
    correction_rows = [
        (f"{name} by data.{key}", f"{data[name]['count']:,}, SHA-256 {data[name]['sha256'][:16]}")
        for key, name in (("exclude", "excluded"), ("relabel", "relabeled"))
        if data.get(name)
    ]
    problem_rows = [(problem["kind"], f"{problem['count']}") for problem in problems if "count" in problem]
    return [
        ("data set", f"{recipe.dataset.name}, {data['classes']} classes"),
        *((f"{split} images", f"{count:,}") for split, count in data["images"].items()),
        *skipped_rows,
        *correction_rows,
        *problem_rows,
        ("fingerprint", data["fingerprint"]),
        ("backbone", f"{recipe.backbone.library} {recipe.backbone.name}"),
        ("pretrained weights", str(source["name"]) if source else "none: random"),
        *([("SHA-256", str(source["hash"]))] if source and source.get("hash") else []),
        (
            "image size",
            f"{preprocessing.size} x {preprocessing.size}, center crop after resizing to {preprocessing.resize}",
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


def _build_probe_rows(run: Run) -> Rows:
    probe = run.record["probe"]
    setting = ", ".join(f"{name} {value}" for name, value in probe["setting"].items())
    trials_file = run.probe_trials_path.name
    return [("method", str(probe["method"])), ("setting", setting or "none"), ("all trials", trials_file)]


def _build_timing_rows(timing: Mapping[str, float], is_probe: bool) -> Rows:
    rows = [("total, with reading and testing", f"{timing['wall_s']:.1f} s")]
    rows.append(("fitting classifiers" if is_probe else "epochs", f"{timing['train_s']:.1f} s"))
    rows += [("computing frozen features", f"{timing['cache_s']:.1f} s")] if timing["cache_s"] else []
    return rows + ([("in training", f"{timing['images_per_s']:,.0f} images/s")] if timing["images_per_s"] else [])


def _build_environment_rows(record: Mapping[str, Any]) -> Rows:
    hardware, git = record["hardware"], record.get("git")
    revision = f"{git['commit'][:12]}{', with changes' if git['changed'] else ''}" if git else "not in a checkout"
    return [
        ("started", str(record["started"])),
        *([("resumed", _format_resumes(record["resumed"]))] if record.get("resumed") else []),
        ("processor", f"{hardware['cpu']}, {hardware['cores']} cores"),
        *([("GPUs", ", ".join(hardware["gpus"]))] if hardware["gpus"] else []),
        ("platform", str(hardware["platform"])),
        ("revision of thaw", revision),
        *((name, str(version)) for name, version in record["versions"].items()),
    ]


def _format_resumes(entries: Sequence[Any]) -> str:
    """Return the times of all resumes with what they changed; version 0.1 recorded the times alone."""
    resumes = [entry if isinstance(entry, Mapping) else {"time": entry} for entry in entries]
    return ", ".join(" ".join([str(entry.get("time")), *entry.get("overrides", [])]) for entry in resumes)


def _build_command_rows(run: Run) -> Rows:
    quoted_directory = shlex.quote(shorten_path(run.directory))
    return [
        ("train the same run again", run.record.get("command", "")),
        ("measure it on its test images, or on others", f"thaw evaluate {quoted_directory}"),
        ("predict an image", f"thaw predict {quoted_directory} IMAGE"),
        ("show which regions of an image decide", f"thaw explain {quoted_directory} IMAGE"),
        ("show its curves in TensorBoard", f"thaw dashboard {quoted_directory}"),
    ]


@dataclass(frozen=True)
class ExplainedModel:
    """A trained network in evaluation mode, on the CPU, with its preprocessing, classes and stages.

    `load_pixels` returns test images by path as uint8 [n, size, size, 3], as the network gets them before they are
    normalized. `unavailable_reason` says why Grad-CAM cannot be computed; empty if it can.
    """

    network: Network
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    stages: Sequence[StageCost]
    load_pixels: Callable[[Sequence[str]], np.ndarray]
    unavailable_reason: str = ""

    @property
    def max_images(self) -> int:
        """The number of images for which Grad-CAM takes little time."""
        multiply_adds = sum(stage.multiply_adds for stage in self.stages)
        return max(MIN_IMAGES, min(MAX_IMAGES, int(MAX_MULTIPLY_ADDS / multiply_adds)))


def compute_grad_cam(model: ExplainedModel, pixels: np.ndarray, targets: np.ndarray) -> GradCam:
    """Return Grad-CAM of `pixels`, uint8 [n, size, size, 3] as `model.load_pixels` returns them, for the classes
    `targets`, int64 [n, k].

    Raises:
        ValueError: if no stage outputs feature maps, or the model has an `unavailable_reason`.
    """
    if model.unavailable_reason:
        raise ValueError(model.unavailable_reason)
    images = Normalize(model.preprocessing)(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    images = images.to(next(model.network.parameters()).dtype)  # trainer.precision=64-true
    return grad_cam(model.network, images, torch.from_numpy(targets))


def overlay_cam(pixels: np.ndarray, cam: Tensor, side: int) -> np.ndarray:
    """Return the square image in the colors of `cam`, float [any, any] in 0..1, as uint8 [side, side, 3]."""
    heat = upsample_maps(cam[None, None], side)[0, 0].numpy()
    palette = (matplotlib.colormaps[COLORMAP](np.arange(256))[:, :3] * 255).astype(np.float32)
    colors = palette[(heat * 255).astype(np.uint8)]
    opacity = (0.25 + 0.4 * heat)[..., None]
    image = np.asarray(Image.fromarray(pixels).resize((side, side)), dtype=np.float32)
    blended: np.ndarray = (image + (colors - image) * opacity).round().astype(np.uint8)
    return blended
