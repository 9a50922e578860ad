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

from thaw.analysis.dream import Dreaming, dreamt
from thaw.analysis.feature_maps import COLUMNS, MOST_CHANNELS, StageMaps, first_filters, sheet, stage_maps, tiled
from thaw.analysis.grad_cam import grad_cam
from thaw.analysis.looks import overlaid
from thaw.analysis.page import rendered, thumb
from thaw.analysis.sample_grid import SIDE, save_samples, save_strips
from thaw.config.faults import Fault, UserFault, listing, nearest
from thaw.network.normalise import Normalise
from thaw.trained.prediction import seen
from thaw.trained.restore import Restored
from thaw.training.files import write_text

WHOLE = 10_000  # pixels: as large as it is
PICTURE = 336  # pixels on the page
FEW_LAYERS = 12  # of more a PNG file shows a row each: ResNet-152's third stage has 108 convolutions


@dataclass(frozen=True)
class Answers:
    """The likeliest classes, the first most of all: `names`, `probabilities`, and what speaks for each, `cams` float32
    [top, side, side], seen in `stage`; without cams `reason` says why."""

    names: list[str]
    probabilities: list[float]
    cams: list[Tensor]
    stage: str = ""
    reason: str = ""


def check_stage(network: Restored, stage: str) -> None:
    """Raises UserFault where `network` has no such stage."""
    stages = list(network.network.stages)
    if stage not in stages:
        near = nearest(stage, stages)
        got = f"no stage of {network.recipe.backbone.name}"
        fault = Fault(f"--dream {stage}", got, listing(stages), f"--dream {near}" if near else "")
        raise UserFault("no such stage.", [fault])


def explain(trained: Restored, picture: Image.Image, name: str, folder: Path, top: int, dream: Dreaming | None) -> Path:
    """Writes index.html, a page and a PNG file a stage, grad_cam.png, filters.png and, where one is dreamt of,
    dream_STAGE.png into `folder`; returns the path of index.html. `name` is the picture's.

    Raises:
        UserFault: where there is no such stage to dream of.
    """
    if dream:
        check_stage(trained, dream.stage)
    folder.mkdir(parents=True, exist_ok=True)
    pixels = seen(picture, trained.preprocessing).contiguous()
    image = Normalise(trained.preprocessing)(pixels[None])
    shown = pixels.permute(1, 2, 0).numpy()
    answers = _answers(trained, image, top)
    stages = stage_maps(trained.network, image)
    _save_answers(shown, answers, folder / "grad_cam.png")
    filters = _filters(trained, folder / "filters.png")
    dreams = _dream(trained, image, shown, dream, folder) if dream else None
    common = {"name": name, "backbone": trained.recipe.backbone.name, "dataset": trained.recipe.dataset.name}
    for number, stage in enumerate(stages):
        _write_stage(stage, stages, number, folder, common)
    values = {**common, **_answered(shown, answers), "filters": filters, "dream": dreams, "size": pixels.shape[1]}
    rows = [(one.name, page_of(one.name), _described(one), _strip(one)) for one in stages]
    write_text(folder / "index.html", rendered("explain.html", stages=rows, **values))
    return folder / "index.html"


def page_of(stage: str, ending: str = ".html") -> str:
    """A file name for a stage, whose own may hold what file systems do not take."""
    return f"stage_{re.sub(r'[^0-9A-Za-z_.-]', '_', stage)}{ending}"


def _answers(trained: Restored, image: Tensor, top: int) -> Answers:
    try:
        found = grad_cam(trained.network, image, top=top)
    except ValueError as error:
        with torch.inference_mode():
            best = trained.network(image).softmax(1)[0].topk(min(top, len(trained.classes)))
        return Answers(
            [trained.classes[one] for one in best.indices.tolist()], best.values.tolist(), [], "", str(error)
        )
    likeliest = found.targets[0].tolist()
    probabilities = found.probabilities[0, likeliest].tolist()
    return Answers([trained.classes[one] for one in likeliest], probabilities, list(found.maps[0]), found.stage)


def _save_answers(shown: np.ndarray, answers: Answers, file: Path) -> None:
    over = [overlaid(shown, cam, SIDE) for cam in answers.cams]
    said = [f"{name} {share:.3f}" for name, share in zip(answers.names, answers.probabilities, strict=True)][
        : len(over)
    ]
    as_it_is = np.asarray(Image.fromarray(shown).resize((SIDE, SIDE)))
    save_samples(np.stack([as_it_is, *over]), ["the picture", *said], [False] * (1 + len(over)), file)


def _answered(shown: np.ndarray, answers: Answers) -> dict[str, Any]:
    over = [thumb(overlaid(shown, cam, PICTURE), PICTURE) for cam in answers.cams]
    said = list(zip(answers.names, answers.probabilities, strict=True))
    return {
        "picture": thumb(shown, WHOLE),
        "said": said,
        "cams": list(zip(over, said, strict=False)),
        "cam_stage": answers.stage,
        "no_cams": answers.reason,
    }


def _filters(trained: Restored, file: Path) -> tuple[str, Any, int] | None:
    """Path of the layer, picture, how many; None where the first layer is no convolution of colours."""
    found = first_filters(trained.network)
    if found is None:
        return None
    path, filters = found
    grid = tiled((filters * 255).round().astype(np.uint8), columns=2 * COLUMNS)
    Image.fromarray(grid).save(file)
    return path, thumb(grid, WHOLE), len(filters)


def _dream(trained: Restored, image: Tensor, shown: np.ndarray, how: Dreaming, folder: Path) -> tuple[Dreaming, Any]:
    normalise = Normalise(trained.preprocessing)
    least, most = (normalise(torch.full((1, 3, 1, 1), value, dtype=torch.uint8)) for value in (0, 255))
    changed = dreamt(trained.network, image, least, most, how)
    scaled = (changed * normalise.deviation + normalise.mean).clamp(0, 255).round().byte()
    pixels = scaled[0].permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(folder / page_of(how.stage, ".png").replace("stage_", "dream_", 1))
    return how, thumb(pixels, WHOLE)


def _strip(stage: StageMaps) -> Any:
    return thumb(sheet(stage.output.maps, COLUMNS), WHOLE) if stage.output else None


def _described(stage: StageMaps) -> str:
    count = len(stage.layers)
    layers = f"{count} convolution{'' if count == 1 else 's'}" if stage.has_convolutions else "no convolution"
    if stage.output is None:
        return f"{layers}; no maps at its end"
    side = stage.output.maps.shape[-1]
    return f"{layers}; maps of {side} x {side}, {stage.output.channels:,} channels"


def _write_stage(stage: StageMaps, stages: list[StageMaps], number: int, folder: Path, common: dict[str, str]) -> None:
    layers = [
        (one.path or "what the stage puts out", one.kind, one.channels, one.maps.shape, thumb(sheet(one.maps), WHOLE))
        for one in stage.layers
    ]
    before, after = stages[number - 1 : number], stages[number + 1 : number + 2]
    text = rendered(
        "explain_stage.html",
        stage=stage,
        layers=layers,
        most=MOST_CHANNELS,
        before=[(one.name, page_of(one.name)) for one in before],
        after=[(one.name, page_of(one.name)) for one in after],
        **common,
    )
    write_text(folder / page_of(stage.name), text)
    if stage.layers:
        most = MOST_CHANNELS if len(stage.layers) <= FEW_LAYERS else COLUMNS
        labels = [
            f"{one.path or stage.name}   {one.channels} x {one.maps.shape[1]} x {one.maps.shape[2]}"
            for one in stage.layers
        ]
        strips = [(label, sheet(one.maps, most)) for label, one in zip(labels, stage.layers, strict=True)]
        save_strips(strips, folder / page_of(stage.name, ".png"))
