"""Apply augmentation to a batch, on the device of the batch.

Crop, flip and rotation are one affine map per image and one resampling; brightness, saturation and hue are one color
matrix. All together cost as much as one of them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

LUMA_WEIGHTS = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma
RGB_TO_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))


def apply_augmentation(images: Tensor, params: dict[str, Tensor], size: int) -> Tensor:
    """Return float [n, 3, size, size] on the 0..255 scale for images uint8 [n, 3, height, width].

    `params` come from `Augmentation.sample_params` and decide the dtype: float32, or float64 where Lightning has
    converted the batch for trainer.precision=64-true.
    """
    result = _warp_affine(images.to(params["affine"].dtype), params["affine"], params["limits"], size)
    if "color" in params:
        result = _apply_color(result, params["color"], params["contrast"])
    if "erase_boxes" in params:
        result = _erase_boxes(result, params["erase_boxes"])
    if "cutmix_box" in params:
        return _apply_cutmix(result, params["partner"], params["cutmix_box"])
    if "partner" in params:
        lam = params["share"].view(-1, 1, 1, 1)
        return lam * result + (1 - lam) * result[params["partner"]]
    return result


def affine_matrices(
    center: np.ndarray, extent: np.ndarray, flip_sign: np.ndarray, angle: np.ndarray, image_sizes: np.ndarray
) -> dict[str, Tensor]:
    """Return `affine` [n, 2, 3] and `limits` [n, 2] for boxes around `center` [n, 2] of `extent` [n, 2], in pixels
    (row, column).

    `affine` maps -1..1 of the result to -1..1 of the canvas, x before y. `limits` are the largest coordinates inside
    each image.
    """
    canvas = image_sizes.max(0)
    relative_extent = extent / canvas  # relative to half the canvas
    canvas_height, canvas_width = canvas
    sine, cosine = np.sin(angle), np.cos(angle)
    aspect = canvas_height / canvas_width  # rotates in pixels, although the scales of the two axes differ
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
    """Resample bilinearly; outside an image its edge pixels repeat, so the padding of the canvas never shows."""
    grid = F.affine_grid(affine, [len(images), 3, size, size], align_corners=False)
    grid = torch.minimum(grid, limits[:, None, None, :])
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def build_color_matrices(brightness: np.ndarray, saturation: np.ndarray, hue_shift: np.ndarray) -> Tensor:
    """Return RGB matrices [n, 3, 3] that rotate hue by `hue_shift` turns (YIQ), then saturation and brightness."""
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
    luma_weights = torch.tensor(LUMA_WEIGHTS, dtype=images.dtype, device=images.device).view(1, 3, 1, 1)
    mean_luma = (images * luma_weights).sum(1, keepdim=True).mean((2, 3), keepdim=True)
    return (mean_luma + contrast.view(-1, 1, 1, 1) * (images - mean_luma)).clamp(0, 255)


def _erase_boxes(images: Tensor, boxes: Tensor) -> Tensor:
    """Fill `boxes` [n, 4] (top, left, bottom, right; pixels) with the mean color of each image."""
    pixel_centers = torch.arange(images.shape[-1], device=images.device) + 0.5
    top, left, bottom, right = (edge.view(-1, 1) for edge in boxes.T)
    row_mask = (pixel_centers >= top) & (pixel_centers < bottom)
    column_mask = (pixel_centers >= left) & (pixel_centers < right)
    box_mask = row_mask[:, None, :, None] & column_mask[:, None, None, :]
    return torch.where(box_mask, images.mean((2, 3), keepdim=True), images)


def _apply_cutmix(images: Tensor, partner: Tensor, box: Tensor) -> Tensor:
    pixel_indices = torch.arange(images.shape[-1], device=images.device)
    row_mask = (pixel_indices >= box[0]) & (pixel_indices < box[2])
    column_mask = (pixel_indices >= box[1]) & (pixel_indices < box[3])
    return torch.where(row_mask[:, None] & column_mask[None, :], images[partner], images)
