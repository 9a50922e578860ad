"""Explain what a trained network sees in an image, as pages and PNG files; write the report of a finished run again."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from thaw.config.errors import Problem, UserError, find_closest_name, format_names
from thaw.data.image import BrokenImageError, DecodedImage
from thaw.inference.evaluation_data import load_recorded_samples
from thaw.inference.load import Classifier, load_checkpoint
from thaw.inference.predict import load_pixels, preprocess
from thaw.models.cost import compute_stage_costs
from thaw.runs.run import Run, open_run
from thaw.system.files import write_text
from thaw.visualization.interpret.deep_dream import DeepDreamSettings, deep_dream
from thaw.visualization.interpret.feature_maps import (
    COLUMNS,
    MAX_CHANNELS,
    StageMaps,
    compute_stage_maps,
    extract_first_filters,
    render_maps,
    tile_images,
)
from thaw.visualization.interpret.grad_cam import grad_cam
from thaw.visualization.plots.image_grid import CELL_SIDE, Caption, save_image_grid, save_image_strips
from thaw.visualization.reports.html import encode_thumbnail, render_template
from thaw.visualization.reports.run import ExplainedModel, overlay_cam, render_run_report

UNLIMITED_SIDE = 10_000  # pixels: images keep their size
IMAGE_SIDE = 336  # pixels on the page
MAX_FULL_LAYERS = 12  # a PNG file shows one row each of more layers: ResNet-152's third stage has 108 convolutions


@dataclass(frozen=True)
class TopClasses:
    """The most probable classes in descending order, with their Grad-CAM.

    `cams` is float32 [top, side, side], computed in `stage`; empty where there is none, for the reason in `reason`.
    """

    names: list[str]
    probabilities: list[float]
    cams: list[Tensor]
    stage: str = ""
    reason: str = ""


def check_stage(classifier: Classifier, stage: str) -> None:
    """Check that the network has a stage of this name.

    Raises:
        UserError: where it has not.
    """
    stages = list(classifier.network.stages)
    if stage not in stages:
        suggestion = find_closest_name(stage, stages)
        got = f"no stage of {classifier.recipe.backbone.name}"
        problem = Problem(f"--dream {stage}", got, format_names(stages), f"--dream {suggestion}" if suggestion else "")
        raise UserError("no such stage.", [problem])


def explain(
    classifier: Classifier, image: DecodedImage, name: str, folder: Path, top: int, dream: DeepDreamSettings | None
) -> Path:
    """Write pages and PNG files about one image into `folder`; return the path of index.html.

    They are index.html, a page and a PNG file per stage, grad_cam.png, filters.png and, with `dream`, dream_STAGE.png.
    `name` is the name of the image.

    Raises:
        UserError: where the network has no stage as `dream` names it.
    """
    if dream:
        check_stage(classifier, dream.stage)
    folder.mkdir(parents=True, exist_ok=True)
    pixels = preprocess(image, classifier.preprocessing).contiguous()
    inputs = classifier.build_normalize()(pixels[None])
    display_pixels = pixels.permute(1, 2, 0).numpy()
    top_classes = _compute_top_classes(classifier, inputs, top)
    _save_cam_grid(display_pixels, top_classes, folder / "grad_cam.png")
    common = {"name": name, "backbone": classifier.recipe.backbone.name, "dataset": classifier.recipe.dataset.name}
    values = {
        **common,
        **_build_prediction_values(display_pixels, top_classes),
        "filters": _save_filters(classifier, folder / "filters.png"),
        "dream": _save_dream(classifier, inputs, dream, folder) if dream else None,
        "size": pixels.shape[1],
        "stages": _write_stage_pages(classifier, inputs, folder, common),
    }
    write_text(folder / "index.html", render_template("explain.html", **values))
    return folder / "index.html"


def build_page_name(stage: str, suffix: str = ".html") -> str:
    """Build a file name for a stage; its own name may hold characters that file systems do not take."""
    return f"stage_{re.sub(r'[^0-9A-Za-z_.-]', '_', stage)}{suffix}"


def _compute_top_classes(classifier: Classifier, inputs: Tensor, top: int) -> TopClasses:
    try:
        result = grad_cam(classifier.network, inputs, top=top)
    except ValueError as error:
        with torch.inference_mode():
            best = classifier.network(inputs).softmax(1)[0].topk(min(top, len(classifier.classes)))
        names = [classifier.classes[label] for label in best.indices.tolist()]
        return TopClasses(names, best.values.tolist(), [], "", str(error))
    labels = result.targets[0].tolist()
    names = [classifier.classes[label] for label in labels]
    return TopClasses(names, result.probabilities[0, labels].tolist(), list(result.maps[0]), result.stage)


def _save_cam_grid(display_pixels: np.ndarray, top_classes: TopClasses, file: Path) -> None:
    overlays = [overlay_cam(display_pixels, cam, CELL_SIDE) for cam in top_classes.cams]
    captions = [
        Caption(f"{name} {probability:.3f}")
        for name, probability in zip(top_classes.names, top_classes.probabilities, strict=True)
    ][: len(overlays)]
    original = np.asarray(Image.fromarray(display_pixels).resize((CELL_SIDE, CELL_SIDE)))
    save_image_grid(np.stack([original, *overlays]), [Caption("image"), *captions], file)


def _build_prediction_values(display_pixels: np.ndarray, top_classes: TopClasses) -> dict[str, Any]:
    overlays = [encode_thumbnail(overlay_cam(display_pixels, cam, IMAGE_SIDE), IMAGE_SIDE) for cam in top_classes.cams]
    class_probabilities = list(zip(top_classes.names, top_classes.probabilities, strict=True))
    return {
        "image": encode_thumbnail(display_pixels, UNLIMITED_SIDE),
        "predictions": class_probabilities,
        "cams": list(zip(overlays, class_probabilities, strict=False)),
        "cam_stage": top_classes.stage,
        "no_cams_reason": top_classes.reason,
    }


def _save_filters(classifier: Classifier, file: Path) -> tuple[str, Any, int] | None:
    """Save the filters of the first layer; return its path, the image and the number of filters.

    Return None where the first layer is not a convolution of red, green and blue.
    """
    named_filters = extract_first_filters(classifier.network)
    if named_filters is None:
        return None
    path, filters = named_filters
    grid = tile_images((filters * 255).round().astype(np.uint8), columns=2 * COLUMNS)
    Image.fromarray(grid).save(file)
    return path, encode_thumbnail(grid, UNLIMITED_SIDE), len(filters)


def _save_dream(
    classifier: Classifier, inputs: Tensor, settings: DeepDreamSettings, folder: Path
) -> tuple[DeepDreamSettings, Any]:
    normalize = classifier.build_normalize()
    min_values, max_values = (normalize(torch.full((1, 3, 1, 1), value, dtype=torch.uint8)) for value in (0, 255))
    dream_inputs = deep_dream(classifier.network, inputs, min_values, max_values, settings)
    pixels = normalize.invert(dream_inputs).round().byte()[0].permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(folder / build_page_name(settings.stage, ".png").replace("stage_", "dream_", 1))
    return settings, encode_thumbnail(pixels, UNLIMITED_SIDE)


def _render_strip(stage: StageMaps) -> Any:
    return encode_thumbnail(render_maps(stage.output.maps, COLUMNS), UNLIMITED_SIDE) if stage.output else None


def _describe_stage(stage: StageMaps) -> str:
    count = len(stage.layers)
    layers = f"{count} convolution{'' if count == 1 else 's'}" if stage.has_convolutions else "no convolution"
    if stage.output is None:
        return f"{layers}; its output has no maps"
    side = stage.output.maps.shape[-1]
    return f"{layers}; maps of {side} x {side}, {stage.output.channels:,} channels"


def _write_stage_pages(
    classifier: Classifier, inputs: Tensor, folder: Path, common: dict[str, str]
) -> list[tuple[str, str, str, Any]]:
    """Write a page and a PNG file per stage; return name, page, description and image strip of each."""
    stages = compute_stage_maps(classifier.network, inputs)
    pages = [(stage.name, build_page_name(stage.name)) for stage in stages]
    for index, stage in enumerate(stages):
        values: dict[str, Any] = {**common, **_build_stage_values(stage)}
        values["previous_pages"], values["next_pages"] = pages[max(0, index - 1) : index], pages[index + 1 : index + 2]
        write_text(folder / build_page_name(stage.name), render_template("explain_stage.html", **values))
        if stage.layers:
            save_image_strips(_render_layers(stage), folder / build_page_name(stage.name, ".png"))
    return [(*page, _describe_stage(stage), _render_strip(stage)) for page, stage in zip(pages, stages, strict=True)]


def _build_stage_values(stage: StageMaps) -> dict[str, Any]:
    layers = [
        {
            "path": layer.path or "output of the stage",
            "kind": layer.kind,
            "channels": layer.channels,
            "shape": layer.maps.shape,
            "image": encode_thumbnail(render_maps(layer.maps), UNLIMITED_SIDE),
        }
        for layer in stage.layers
    ]
    return {"stage": stage, "layers": layers, "max_channels": MAX_CHANNELS}


def _render_layers(stage: StageMaps) -> list[tuple[str, np.ndarray]]:
    max_maps = MAX_CHANNELS if len(stage.layers) <= MAX_FULL_LAYERS else COLUMNS
    return [
        (
            f"{layer.path or stage.name}   {layer.channels} x {layer.maps.shape[1]} x {layer.maps.shape[2]}",
            render_maps(layer.maps, max_maps),
        )
        for layer in stage.layers
    ]


def check_reportable(run: Run) -> None:
    """Raise UserError if `run` has not finished, or a file that the report needs is damaged."""
    open_run(run.directory)
    if not run.is_finished:
        fix = f"thaw resume {shlex.quote(str(run.directory))}"
        problem = Problem(str(run.directory), f"this run is {run.status}", "a run that is done", fix)
        raise UserError("no report without a finished run.", [problem])
    run.check_results()
    run.read_history()


def write_report(run: Run) -> Path:
    """Write `report.html` of `run` again and return its path. The test images are read from the data set of the recipe;
    if they cannot be read, the page says so.

    Raises:
        UserError: if the run has not finished, or its checkpoint cannot be used.
    """
    check_reportable(run)
    classifier = load_checkpoint(run.directory)

    def load_run_pixels(paths: Sequence[str]) -> np.ndarray:
        return _load_test_pixels(classifier, paths)

    costs = compute_stage_costs(classifier.network, classifier.preprocessing.size)
    model = ExplainedModel(classifier.network, classifier.preprocessing, classifier.classes, costs, load_run_pixels)
    run.write_report(render_run_report(run, model))
    return run.report_path


def _load_test_pixels(classifier: Classifier, paths: Sequence[str]) -> np.ndarray:
    """Raise OSError if an image cannot be read or downloaded."""
    recipe = classifier.recipe
    try:
        root = load_recorded_samples(recipe).root
        return load_pixels([root / path for path in paths], classifier.preprocessing)
    except (UserError, BrokenImageError) as error:
        raise OSError(str(error).splitlines()[0]) from error
