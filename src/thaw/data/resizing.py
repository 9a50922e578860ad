"""Resize decoded images to what networks see before the crop."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from thaw.data.image import DecodedImage, is_elongated, wrap_image
from thaw.data.preprocessing import Preprocessing

INTERPOLATIONS = {name.lower(): method for name, method in Image.Resampling.__members__.items()}
TORCH_INTERPOLATIONS = ("bilinear", "bicubic")
CROPPED_ASPECT_RATIO = 4  # longer side to shorter; an image of 20,000 x 10 pixels resized as a whole would take 400 MB


def resize_image(decoded: DecodedImage, preprocessing: Preprocessing) -> np.ndarray:
    """Resize an image for cropping, to uint8 [height, width, 3], upright. An elongated image is cropped before."""
    is_turned_first = preprocessing.decoding == "full"
    region = crop_elongated(wrap_image(decoded.turn_upright()) if is_turned_first else decoded)
    resized = _resize(region, _compute_size(region.size, preprocessing), preprocessing)
    if region.transpose is None:
        return resized
    return np.asarray(Image.fromarray(resized).transpose(region.transpose))


def crop_elongated(decoded: DecodedImage) -> DecodedImage:
    """Crop an elongated image, which is never decoded at a fraction, to its middle, of CROPPED_ASPECT_RATIO."""
    width, height = decoded.size
    if not is_elongated(width, height):
        return decoded
    crop_width, crop_height = (min(side, CROPPED_ASPECT_RATIO * min(width, height)) for side in (width, height))
    left, top = (width - crop_width) // 2, (height - crop_height) // 2
    pixels = decoded.pixels.crop((left, top, left + crop_width, top + crop_height))
    return dataclasses.replace(decoded, pixels=pixels, size=pixels.size)


def _compute_size(size: tuple[int, int], preprocessing: Preprocessing) -> tuple[int, int]:
    """Return width and height that an image of `size` is resized to."""
    (width, height), side = size, preprocessing.resize
    if preprocessing.squash:
        return side, side
    if width <= height:
        return side, max(side, int(side * height / width))  # torchvision truncates the longer side
    return max(side, int(side * width / height)), side


def _resize(region: DecodedImage, size: tuple[int, int], preprocessing: Preprocessing) -> np.ndarray:
    """Resize the pixels of `region` to width and height of `size`, uint8 [height, width, 3].

    With AVX2, torch takes a third of Pillow's time; its pixels are Pillow's but for roundings. It cannot resize a part
    of an image, as it would have to if the last column or row of a fraction covers less than its neighbors.
    """
    covered_size = (region.size[0] / region.denominator, region.size[1] / region.denominator)
    if covered_size == region.pixels.size == size:
        return np.asarray(region.pixels)
    interpolation, is_whole = preprocessing.interpolation, covered_size == region.pixels.size
    if preprocessing.decoding == "scaled" and interpolation in TORCH_INTERPOLATIONS and is_whole and _has_avx2():
        pixels = torch.from_numpy(np.array(region.pixels)).permute(2, 0, 1)
        resized = F.interpolate(pixels[None], size=size[::-1], mode=interpolation, antialias=True)
        return resized[0].permute(1, 2, 0).numpy()
    return np.asarray(region.pixels.resize(size, INTERPOLATIONS[interpolation], box=(0, 0, *covered_size)))


def _has_avx2() -> bool:
    """Return whether torch has fast kernels for images of 8 bits on this processor."""
    return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
