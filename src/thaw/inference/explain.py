"""What a trained network sees in one picture, next to what it says: pages and PNG files in a folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from thaw.config.errors import Problem, UserError, find_closest_name, format_names
from thaw.inference.load import Classifier
from thaw.inference.predict import preprocess
from thaw.models.network import Normalize
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
from thaw.visualization.plots.image_grid import CELL_SIDE, save_image_grid, save_image_strips
from thaw.visualization.reports.html import encode_thumbnail, render_template
from thaw.visualization.reports.run import overlay_cam

UNLIMITED_SIDE = 10_000  # pixels: as large as it is
IMAGE_SIDE = 336  # pixels on the page
MAX_FULL_LAYERS = 12  # of more a PNG file shows a row each: ResNet-152's third stage has 108 convolutions


@dataclass(frozen=True)
class TopClasses:
    """The likeliest classes, the first most of all: `names`, `probabilities`, and what speaks for each, `cams` float32
    [top, side, side], seen in `stage`; without cams `reason` says why."""

    names: list[str]
    probabilities: list[float]
    cams: list[Tensor]
    stage: str = ""
    reason: str = ""


def check_stage(classifier: Classifier, stage: str) -> None:
    """Raises UserFault where `network` has no such stage."""
    stages = list(classifier.network.stages)
    if stage not in stages:
        suggestion = find_closest_name(stage, stages)
        got = f"no stage of {classifier.recipe.backbone.name}"
        problem = Problem(f"--dream {stage}", got, format_names(stages), f"--dream {suggestion}" if suggestion else "")
        raise UserError("no such stage.", [problem])


def explain(
    classifier: Classifier, image: Image.Image, name: str, folder: Path, top: int, dream: DeepDreamSettings | None
) -> Path:
    """Writes index.html, a page and a PNG file a stage, grad_cam.png, filters.png and, where one is dreamt of,
    dream_STAGE.png into `folder`; returns the path of index.html. `name` is the picture's.

    Raises:
        UserFault: where there is no such stage to dream of.
    """
    if dream:
        check_stage(classifier, dream.stage)
    folder.mkdir(parents=True, exist_ok=True)
    pixels = preprocess(image, classifier.preprocessing).contiguous()
    inputs = Normalize(classifier.preprocessing)(pixels[None])
    display_pixels = pixels.permute(1, 2, 0).numpy()
    top_classes = _compute_top_classes(classifier, inputs, top)
    stages = compute_stage_maps(classifier.network, inputs)
    _save_cam_grid(display_pixels, top_classes, folder / "grad_cam.png")
    filters = _save_filters(classifier, folder / "filters.png")
    dream_result = _save_dream(classifier, inputs, display_pixels, dream, folder) if dream else None
    common = {"name": name, "backbone": classifier.recipe.backbone.name, "dataset": classifier.recipe.dataset.name}
    for index, stage in enumerate(stages):
        _write_stage_page(stage, stages, index, folder, common)
    values = {
        **common,
        **_build_template_values(display_pixels, top_classes),
        "filters": filters,
        "dream": dream_result,
        "size": pixels.shape[1],
    }
    rows = [
        (stage_map.name, build_page_name(stage_map.name), _describe_stage(stage_map), _render_strip(stage_map))
        for stage_map in stages
    ]
    write_text(folder / "index.html", render_template("explain.html", stages=rows, **values))
    return folder / "index.html"


def build_page_name(stage: str, suffix: str = ".html") -> str:
    """A file name for a stage, whose own may hold what file systems do not take."""
    return f"stage_{re.sub(r'[^0-9A-Za-z_.-]', '_', stage)}{suffix}"


def _compute_top_classes(classifier: Classifier, inputs: Tensor, top: int) -> TopClasses:
    try:
        cam_result = grad_cam(classifier.network, inputs, top=top)
    except ValueError as error:
        with torch.inference_mode():
            best = classifier.network(inputs).softmax(1)[0].topk(min(top, len(classifier.classes)))
        return TopClasses(
            [classifier.classes[label] for label in best.indices.tolist()], best.values.tolist(), [], "", str(error)
        )
    top_labels = cam_result.targets[0].tolist()
    probabilities = cam_result.probabilities[0, top_labels].tolist()
    return TopClasses(
        [classifier.classes[label] for label in top_labels], probabilities, list(cam_result.maps[0]), cam_result.stage
    )


def _save_cam_grid(display_pixels: np.ndarray, top_classes: TopClasses, file: Path) -> None:
    overlays = [overlay_cam(display_pixels, cam, CELL_SIDE) for cam in top_classes.cams]
    captions = [
        f"{name} {probability:.3f}"
        for name, probability in zip(top_classes.names, top_classes.probabilities, strict=True)
    ][: len(overlays)]
    original = np.asarray(Image.fromarray(display_pixels).resize((CELL_SIDE, CELL_SIDE)))
    save_image_grid(np.stack([original, *overlays]), ["the picture", *captions], [False] * (1 + len(overlays)), file)


def _build_template_values(display_pixels: np.ndarray, top_classes: TopClasses) -> dict[str, Any]:
    overlays = [encode_thumbnail(overlay_cam(display_pixels, cam, IMAGE_SIDE), IMAGE_SIDE) for cam in top_classes.cams]
    class_probabilities = list(zip(top_classes.names, top_classes.probabilities, strict=True))
    return {
        "picture": encode_thumbnail(display_pixels, UNLIMITED_SIDE),
        "said": class_probabilities,
        "cams": list(zip(overlays, class_probabilities, strict=False)),
        "cam_stage": top_classes.stage,
        "no_cams": top_classes.reason,
    }


def _save_filters(classifier: Classifier, file: Path) -> tuple[str, Any, int] | None:
    """Path of the layer, picture, how many; None where the first layer is no convolution of colours."""
    named_filters = extract_first_filters(classifier.network)
    if named_filters is None:
        return None
    path, filters = named_filters
    grid = tile_images((filters * 255).round().astype(np.uint8), columns=2 * COLUMNS)
    Image.fromarray(grid).save(file)
    return path, encode_thumbnail(grid, UNLIMITED_SIDE), len(filters)


def _save_dream(
    classifier: Classifier, inputs: Tensor, display_pixels: np.ndarray, settings: DeepDreamSettings, folder: Path
) -> tuple[DeepDreamSettings, Any]:
    normalise = Normalize(classifier.preprocessing)
    min_values, max_values = (normalise(torch.full((1, 3, 1, 1), value, dtype=torch.uint8)) for value in (0, 255))
    dream_inputs = deep_dream(classifier.network, inputs, min_values, max_values, settings)
    scaled = (dream_inputs * normalise.std + normalise.mean).clamp(0, 255).round().byte()
    pixels = scaled[0].permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(folder / build_page_name(settings.stage, ".png").replace("stage_", "dream_", 1))
    return settings, encode_thumbnail(pixels, UNLIMITED_SIDE)


def _render_strip(stage: StageMaps) -> Any:
    return encode_thumbnail(render_maps(stage.output.maps, COLUMNS), UNLIMITED_SIDE) if stage.output else None


def _describe_stage(stage: StageMaps) -> str:
    count = len(stage.layers)
    layers = f"{count} convolution{'' if count == 1 else 's'}" if stage.has_convolutions else "no convolution"
    if stage.output is None:
        return f"{layers}; no maps at its end"
    side = stage.output.maps.shape[-1]
    return f"{layers}; maps of {side} x {side}, {stage.output.channels:,} channels"


def _write_stage_page(
    stage: StageMaps, stages: list[StageMaps], index: int, folder: Path, common: dict[str, str]
) -> None:
    layers = [
        (
            entry.path or "what the stage puts out",
            entry.kind,
            entry.channels,
            entry.maps.shape,
            encode_thumbnail(render_maps(entry.maps), UNLIMITED_SIDE),
        )
        for entry in stage.layers
    ]
    previous_stages, next_stages = stages[index - 1 : index], stages[index + 1 : index + 2]
    html = render_template(
        "explain_stage.html",
        stage=stage,
        layers=layers,
        most=MAX_CHANNELS,
        before=[(entry.name, build_page_name(entry.name)) for entry in previous_stages],
        after=[(entry.name, build_page_name(entry.name)) for entry in next_stages],
        **common,
    )
    write_text(folder / build_page_name(stage.name), html)
    if stage.layers:
        max_maps = MAX_CHANNELS if len(stage.layers) <= MAX_FULL_LAYERS else COLUMNS
        labels = [
            f"{entry.path or stage.name}   {entry.channels} x {entry.maps.shape[1]} x {entry.maps.shape[2]}"
            for entry in stage.layers
        ]
        strips = [(label, render_maps(entry.maps, max_maps)) for label, entry in zip(labels, stage.layers, strict=True)]
        save_image_strips(strips, folder / build_page_name(stage.name, ".png"))
