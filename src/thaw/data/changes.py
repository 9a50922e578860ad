"""What augmentation does to a batch, on whatever device it lies. Geometry is one affine map an image and one sampling,
colour one matrix: crop, mirror image and rotation, brightness, saturation and hue cost what one of them would."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma
TO_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))


def changed(images: Tensor, drawn: dict[str, Tensor], size: int) -> Tensor:
    """float32 [n, 3, size, size] on the 0..255 scale, from uint8 [n, 3, height, width]."""
    result = _sampled(images.float(), drawn["affine"], drawn["limits"], size)
    if "colour" in drawn:
        result = _coloured(result, drawn["colour"], drawn["contrast"])
    if "erased" in drawn:
        result = _erased(result, drawn["erased"])
    if "cut" in drawn:
        return _cut(result, drawn["partner"], drawn["cut"])
    if "partner" in drawn:
        share = drawn["share"].view(-1, 1, 1, 1)
        return share * result + (1 - share) * result[drawn["partner"]]
    return result


def placements(
    middle: np.ndarray, extent: np.ndarray, mirrored: np.ndarray, angle: np.ndarray, sides: np.ndarray
) -> dict[str, Tensor]:
    """`affine` [n, 2, 3] from -1..1 of the result to -1..1 of the canvas, x before y, for boxes around `middle` [n, 2]
    of `extent` [n, 2] (rows, columns; pixels), and `limits` [n, 2], the largest coordinates inside each image."""
    canvas = sides.max(0)
    half = extent / canvas  # of the canvas' half
    rows, columns = canvas
    sine, cosine = np.sin(angle), np.cos(angle)
    turn = rows / columns  # a rotation in pixels, written in coordinates that differ by axis
    across = np.stack([cosine * half[:, 1] * mirrored, -sine * half[:, 0] * turn, 2 * middle[:, 1] / columns - 1], 1)
    down = np.stack([sine * half[:, 1] * mirrored / turn, cosine * half[:, 0], 2 * middle[:, 0] / rows - 1], 1)
    affine = torch.from_numpy(np.stack([across, down], 1)).float()
    return {"affine": affine, "limits": torch.from_numpy((2 * sides[:, ::-1] - 1) / canvas[::-1] - 1).float()}


def _sampled(images: Tensor, affine: Tensor, limits: Tensor, size: int) -> Tensor:
    """Bilinear; beyond an image its edge goes on, and the canvas beside it is never seen."""
    grid = F.affine_grid(affine, [len(images), 3, size, size], align_corners=False)
    grid = torch.minimum(grid, limits[:, None, None, :])
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def colour_matrices(brightness: np.ndarray, saturation: np.ndarray, turn: np.ndarray) -> Tensor:
    """[n, 3, 3] of RGB: hue turned by `turn` (in whole turns) in the YIQ plane, then saturation, then brightness."""
    to_yiq = np.array(TO_YIQ)
    sine, cosine = np.sin(2 * np.pi * turn), np.cos(2 * np.pi * turn)
    none, one = np.zeros_like(turn), np.ones_like(turn)
    turned = np.stack([one, none, none, none, cosine, -sine, none, sine, cosine], 1).reshape(-1, 3, 3)
    hue = np.linalg.inv(to_yiq) @ turned @ to_yiq
    grey = np.broadcast_to(np.array(GREY), (3, 3))
    saturated = saturation[:, None, None] * np.eye(3) + (1 - saturation)[:, None, None] * grey
    return torch.from_numpy(brightness[:, None, None] * (saturated @ hue)).float()


def _coloured(images: Tensor, matrices: Tensor, contrast: Tensor) -> Tensor:
    images = torch.einsum("nij,njhw->nihw", matrices, images)
    grey = torch.tensor(GREY, device=images.device).view(1, 3, 1, 1)
    mean = (images * grey).sum(1, keepdim=True).mean((2, 3), keepdim=True)
    return (mean + contrast.view(-1, 1, 1, 1) * (images - mean)).clamp(0, 255)


def _erased(images: Tensor, boxes: Tensor) -> Tensor:
    """The boxes [n, 4] (top, left, bottom, right; pixels) filled with each image's mean colour."""
    line = torch.arange(images.shape[-1], device=images.device) + 0.5
    top, left, bottom, right = (edge.view(-1, 1) for edge in boxes.T)
    rows, columns = (line >= top) & (line < bottom), (line >= left) & (line < right)
    inside = rows[:, None, :, None] & columns[:, None, None, :]
    return torch.where(inside, images.mean((2, 3), keepdim=True), images)


def _cut(images: Tensor, partner: Tensor, box: Tensor) -> Tensor:
    line = torch.arange(images.shape[-1], device=images.device)
    rows, columns = (line >= box[0]) & (line < box[2]), (line >= box[1]) & (line < box[3])
    return torch.where(rows[:, None] & columns[None, :], images[partner], images)
