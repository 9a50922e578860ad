"""Grad-CAM: where in an image lies what speaks for a class.

Selvaraju et al. 2017, Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization. Own code, as
the stages already are where a network can be looked at: captum's LayerGradCam averages gradients over all axes but the
first two, which is right for [n, channels, height, width] alone, so neither for tokens nor for Swin's channels-last
maps; the package grad-cam brings OpenCV, and asks for a layer and a reshaping function by architecture.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from thaw.models.network import Network, pool
from thaw.visualization.interpret.activations import extract_feature_maps, get_map_side, run_with_activations

MIN_POSITIONS = 4  # a side: 3 x 3 maps, as the last of a network at 96 pixels, point at a third of the image


@dataclass(frozen=True)
class GradCam:
    """`maps` float32 [n, targets, side, side] from 0 to 1, `targets` int64 [n, targets], `probabilities` [n, classes];
    `stage` is where the maps are seen."""

    maps: Tensor
    targets: Tensor
    probabilities: Tensor
    stage: str


def grad_cam(network: Network, images: Tensor, targets: Tensor | None = None, top: int = 1) -> GradCam:
    """For normalised images [n, 3, size, size] what speaks for each of `targets`, int64 [n, targets], by default for
    the `top` likeliest classes. `network` is in evaluation mode, and stays as it is.

    The maps are the last of the network that have FEWEST_POSITIONS a side (or are its largest), and on whose positions
    the logits depend: behind the last block of a ViT nothing but the class token counts, so there they are those before
    it. A class that nothing speaks for has a map of zeros.

    Raises:
        ValueError: where no stage puts out maps.
    """
    stage_inputs, sides = _collect_stage_inputs(network, images)
    min_side = min(MIN_POSITIONS, max(sides))
    if not min_side:
        raise ValueError("no stage of the network puts out maps")
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
    """[n, targets, size, size] of maps of any size."""
    return F.interpolate(maps, (size, size), mode="bicubic", align_corners=False).clamp(0, 1)


@torch.no_grad()
def _collect_stage_inputs(network: Network, images: Tensor) -> tuple[list[Tensor], list[int]]:
    """By stage, its input and the side of the largest maps inside."""
    inputs, sides = [images], list[int]()
    for stage in network.stages.values():
        output, activations = run_with_activations(stage, inputs[-1])
        inputs.append(output)
        sides.append(max(map(get_map_side, activations), default=0))
    return inputs, sides


def _forward_with_activations(network: Network, features: Tensor, depth: int) -> tuple[list[Tensor], Tensor]:
    """What stage `depth` computes of its input, and the logits, with all that gradients need."""
    stage = list(network.stages.values())[depth]
    with torch.enable_grad():
        output, activations = run_with_activations(stage, features.detach().requires_grad_())
        output = network.forward_stages(output, depth + 1, len(network.stages))
        return activations, network.head(pool(output))


def _compute_cams(features: Tensor, logits: Tensor, targets: Tensor) -> Tensor | None:
    """None where the logits do not depend on the positions of these maps."""
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
