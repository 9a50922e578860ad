"""What augmentation does to a batch, on whatever device it lies. Geometry is one affine map an image and one sampling,
colour one matrix: crop, mirror image and rotation, brightness, saturation and hue cost what one of them would."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

LUMA_WEIGHTS = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma
RGB_TO_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))


def apply_augmentation(images: Tensor, params: dict[str, Tensor], size: int) -> Tensor:
    """float32 [n, 3, size, size] on the 0..255 scale, from uint8 [n, 3, height, width]."""
    result = _warp_affine(images.float(), params["affine"], params["limits"], size)
    if "colour" in params:
        result = _apply_color(result, params["colour"], params["contrast"])
    if "erased" in params:
        result = _erase_boxes(result, params["erased"])
    if "cut" in params:
        return _apply_cutmix(result, params["partner"], params["cut"])
    if "partner" in params:
        lam = params["share"].view(-1, 1, 1, 1)
        return lam * result + (1 - lam) * result[params["partner"]]
    return result


def affine_matrices(
    center: np.ndarray, extent: np.ndarray, flip_sign: np.ndarray, angle: np.ndarray, image_sizes: np.ndarray
) -> dict[str, Tensor]:
    """`affine` [n, 2, 3] from -1..1 of the result to -1..1 of the canvas, x before y, for boxes around `middle` [n, 2]
    of `extent` [n, 2] (rows, columns; pixels), and `limits` [n, 2], the largest coordinates inside each image."""
    canvas = image_sizes.max(0)
    relative_extent = extent / canvas  # of the canvas' half
    canvas_height, canvas_width = canvas
    sine, cosine = np.sin(angle), np.cos(angle)
    aspect = canvas_height / canvas_width  # a rotation in pixels, written in coordinates that differ by axis
    x_row = np.stack(
        [
            cosine * relative_extent[:, 1] * flip_sign,
            -sine * relative_extent[:, 0] * aspect,
            2 * center[:, 1] / canvas_width - 1,
        ],
        1,
    )
    y_row = np.stack(
        [
            sine * relative_extent[:, 1] * flip_sign / aspect,
            cosine * relative_extent[:, 0],
            2 * center[:, 0] / canvas_height - 1,
        ],
        1,
    )
    affine = torch.from_numpy(np.stack([x_row, y_row], 1)).float()
    return {"affine": affine, "limits": torch.from_numpy((2 * image_sizes[:, ::-1] - 1) / canvas[::-1] - 1).float()}


def _warp_affine(images: Tensor, affine: Tensor, limits: Tensor, size: int) -> Tensor:
    """Bilinear; beyond an image its edge goes on, and the canvas beside it is never seen."""
    grid = F.affine_grid(affine, [len(images), 3, size, size], align_corners=False)
    grid = torch.minimum(grid, limits[:, None, None, :])
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def build_color_matrices(brightness: np.ndarray, saturation: np.ndarray, hue_shift: np.ndarray) -> Tensor:
    """[n, 3, 3] of RGB: hue turned by `turn` (in whole turns) in the YIQ plane, then saturation, then brightness."""
    to_yiq = np.array(RGB_TO_YIQ)
    sine, cosine = np.sin(2 * np.pi * hue_shift), np.cos(2 * np.pi * hue_shift)
    zeros, ones = np.zeros_like(hue_shift), np.ones_like(hue_shift)
    yiq_rotation = np.stack([ones, zeros, zeros, zeros, cosine, -sine, zeros, sine, cosine], 1).reshape(-1, 3, 3)
    hue_matrix = np.linalg.inv(to_yiq) @ yiq_rotation @ to_yiq
    luma_matrix = np.broadcast_to(np.array(LUMA_WEIGHTS), (3, 3))
    saturation_matrix = saturation[:, None, None] * np.eye(3) + (1 - saturation)[:, None, None] * luma_matrix
    return torch.from_numpy(brightness[:, None, None] * (saturation_matrix @ hue_matrix)).float()


def _apply_color(images: Tensor, matrices: Tensor, contrast: Tensor) -> Tensor:
    images = torch.einsum("nij,njhw->nihw", matrices, images)
    luma_weights = torch.tensor(LUMA_WEIGHTS, device=images.device).view(1, 3, 1, 1)
    mean_luma = (images * luma_weights).sum(1, keepdim=True).mean((2, 3), keepdim=True)
    return (mean_luma + contrast.view(-1, 1, 1, 1) * (images - mean_luma)).clamp(0, 255)


def _erase_boxes(images: Tensor, boxes: Tensor) -> Tensor:
    """The boxes [n, 4] (top, left, bottom, right; pixels) filled with each image's mean colour."""
    pixel_centers = torch.arange(images.shape[-1], device=images.device) + 0.5
    top, left, bottom, right = (edge.view(-1, 1) for edge in boxes.T)
    row_mask, column_mask = (
        (pixel_centers >= top) & (pixel_centers < bottom),
        (pixel_centers >= left) & (pixel_centers < right),
    )
    box_mask = row_mask[:, None, :, None] & column_mask[:, None, None, :]
    return torch.where(box_mask, images.mean((2, 3), keepdim=True), images)


def _apply_cutmix(images: Tensor, partner: Tensor, box: Tensor) -> Tensor:
    pixel_indices = torch.arange(images.shape[-1], device=images.device)
    row_mask, column_mask = (
        (pixel_indices >= box[0]) & (pixel_indices < box[2]),
        (pixel_indices >= box[1]) & (pixel_indices < box[3]),
    )
    return torch.where(row_mask[:, None] & column_mask[None, :], images[partner], images)
