"""Colours of experts as numbers, for pictures: those of the pages (`vmoe.report.page.palette`), light form.

Shapes: E experts.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from vmoe.report.page.palette import colors_of


def tints_of(num_experts: int) -> NDArray[np.float64]:
    """(E, 3), red, green and blue from 0 to 1."""
    return np.array([_rgb(light) for light, _ in colors_of(num_experts)])


def _rgb(css: str) -> NDArray[np.float64]:
    """Of ``#rrggbb`` or ``oklch(L C H)``."""
    if css.startswith("#"):
        return np.array([int(css[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    lightness, chroma, hue = map(float, re.findall(r"[\d.]+", css))
    a, b = chroma * np.cos(np.deg2rad(hue)), chroma * np.sin(np.deg2rad(hue))
    # OKLab to linear sRGB: https://bottosson.github.io/posts/oklab
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = np.array(
        [
            4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
        ]
    ).clip(0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
