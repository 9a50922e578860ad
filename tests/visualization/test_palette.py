"""Readers with any kind of color blindness can tell the colors of the plots apart."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from thaw.visualization.plots.dataset import SPLIT_COLORS
from thaw.visualization.plots.style import PALETTE

# Machado, Oliveira and Fernandes 2009, severity 1, for linear RGB.
VISION = {
    "normal": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
RGB_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def convert_to_lab(colors: list[str], vision: str) -> np.ndarray:
    """Return CIE Lab [colors, 3] of sRGB colors as a reader with `vision` sees them."""
    rgb = np.array([to_rgb(color) for color in colors])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = np.clip(linear @ np.array(VISION[vision]).T, 0, 1) @ RGB_TO_XYZ.T / (0.9505, 1, 1.089)
    cube_roots = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = cube_roots.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("colors", [PALETTE, tuple(SPLIT_COLORS.values())], ids=["palette", "splits"])
def test_colors_differ_from_each_other_and_from_white(colors: tuple[str, ...], vision: str) -> None:
    lab = convert_to_lab([*colors, "#ffffff"], vision)
    distances = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
    assert distances[~np.eye(len(lab), dtype=bool)].min() > 15
