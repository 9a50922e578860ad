"""Grad-CAM: compute the regions of an image that support a class.

Selvaraju et al. 2017, Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization. thaw does not
use a package because its stages already give the layers: captum's LayerGradCam averages gradients over all dimensions
but the first two, which is correct for [n, channels, height, width] but neither for tokens nor for Swin's channels-last
maps; the package grad-cam needs OpenCV, and a layer and a reshaping function per architecture.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from thaw.models.network import Network, pool
from thaw.visualization.interpret.activations import extract_feature_maps, get_map_side, run_with_activations

MIN_POSITIONS = 4  # per side; the 3 x 3 maps at the end of a network at 96 pixels mark a third of the image


@dataclass(frozen=True)
class GradCam:
    """Class activation maps: `maps`, float32 [n, targets, side, side] from 0 to 1, for `targets`, int64 [n, targets].

    `probabilities` are [n, classes]; `stage` is the stage whose activations were used.
    """

    maps: Tensor
    targets: Tensor
    probabilities: Tensor
    stage: str


def grad_cam(network: Network, images: Tensor, targets: Tensor | None = None, top: int = 1) -> GradCam:
    """Compute maps of normalized images [n, 3, size, size] for `targets`, int64 [n, targets].

    The default targets are the `top` most probable classes. `network` must be in evaluation mode and is not changed; it
    computes in the type of its weights.

    The activations are the last of the network that have MIN_POSITIONS per side (or the largest there are) and that
    the logits depend on: after the last block of a ViT only the class token counts, so the maps come from before it. A
    class that no region supports has a map of zeros.

    Raises:
        ValueError: where no stage has maps.
    """
    stage_inputs, sides = _collect_stage_inputs(network, images)
    min_side = min(MIN_POSITIONS, max(sides))
    if not min_side:
        raise ValueError("no stage of the network has maps")
    for depth in [depth for depth, side in enumerate(sides) if side >= min_side][::-1]:
        activations, logits = _forward_with_activations(network, stage_inputs[depth], depth)
        target_classes = logits.topk(min(top, logits.shape[1])).indices if targets is None else targets
        for maps in reversed([activation for activation in activations if get_map_side(activation) >= min_side]):
            cams = _compute_cams(maps, logits, target_classes)
            if cams is not None:
                return GradCam(cams, target_classes, logits.detach().softmax(1), list(network.stages)[depth])
    empty_cams = torch.zeros(*target_classes.shape, min_side, min_side)
    return GradCam(empty_cams, target_classes, logits.detach().softmax(1), list(network.stages)[depth])


def upsample_maps(maps: Tensor, size: int) -> Tensor:
    """Upsample maps [n, targets, side, side] to [n, targets, size, size]."""
    return F.interpolate(maps, (size, size), mode="bicubic", align_corners=False).clamp(0, 1)


@torch.no_grad()
def _collect_stage_inputs(network: Network, images: Tensor) -> tuple[list[Tensor], list[int]]:
    """Return the input of each stage, and the side of the largest maps inside it."""
    inputs, sides = [images], list[int]()
    for stage in network.stages.values():
        output, activations = run_with_activations(stage, inputs[-1])
        inputs.append(output)
        sides.append(max(map(get_map_side, activations), default=0))
    return inputs, sides


def _forward_with_activations(network: Network, features: Tensor, depth: int) -> tuple[list[Tensor], Tensor]:
    """Return the activations of stage `depth` for its input, and the logits, with gradients."""
    stage = list(network.stages.values())[depth]
    with torch.enable_grad():
        output, activations = run_with_activations(stage, features.detach().requires_grad_())
        for later_stage in list(network.stages.values())[depth + 1 :]:
            output = later_stage(output)
        return activations, network.head(pool(output))


def _compute_cams(features: Tensor, logits: Tensor, targets: Tensor) -> Tensor | None:
    """Compute maps from `features`; return None where the logits do not depend on their positions."""
    cams = []
    for target in targets.T:
        score = logits.gather(1, target[:, None]).sum()
        (gradient,) = torch.autograd.grad(score, features, retain_graph=True, allow_unused=True)
        gradient_maps = None if gradient is None else extract_feature_maps(gradient)
        if gradient_maps is None or not gradient_maps.any():
            return None
        maps = extract_feature_maps(features.detach())
        assert maps is not None
        cam = (gradient_maps.mean((2, 3), keepdim=True) * maps).sum(1).relu()
        cams.append(cam / cam.amax((1, 2), keepdim=True).clamp(min=torch.finfo(cam.dtype).tiny))
    return torch.stack(cams, 1).float()
