"""What the script of the maps is given: all weights, packed, and the favourites of the layers that are not drawn yet.

Shapes: n images, N tokens an image, E experts.
"""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np

from vmoe.report.page import LEVELS, as_it_reads
from vmoe.report.page.png import png_uri

from .routing import Favourites, ImageRouting, MapLayer, Weights
from .summary import summarise

MOST_PRECISE = 400_000  # active pairs of a layer; with more of them a page would be slow to open
MOST_FAVOURITES = 256  # of a layer, and at least
LEAST_FAVOURITES = 4  # of each of its experts


def script_data(routing: ImageRouting) -> dict[str, Any]:
    """For the script, as JSON. The favourites of the first layer are in the page already."""
    return {
        "levels": LEVELS,
        "layers": [
            _weights_data(layer) | _favourites_data(routing, number) for number, layer in enumerate(routing.layers)
        ],
    }


def _favourites_data(routing: ImageRouting, number: int) -> dict[str, Any]:
    if not routing.favourites:
        return {}
    return {
        "size": routing.favourites[number].patches.shape[2:4],
        "frame": frame_of(routing, number),
        "favourites": shown_favourites(routing, number) if number else [],
    }


def _weights_data(layer: MapLayer) -> dict[str, Any]:
    summary = summarise(layer)
    steps = np.iinfo(np.uint16 if (layer.weights >= 0).sum() <= MOST_PRECISE else np.uint8).max
    return {
        "name": as_it_reads(layer.name),
        "grid": layer.grid,
        "experts": layer.num_experts,
        "largest": _largest(layer.weights),
        "steps": int(steps),
        "weights": pack(layer.weights, int(steps)),
        "served": [round(float(share), 4) for share in summary.served_E],
        "strongest": [round(float(share), 4) for share in summary.strongest_E],
        "unserved": round(summary.unserved, 4),
    }


def pack(weights_nNE: Weights, steps: int) -> str:
    """Whole numbers: 0 where inactive, else 1 for a weight of 0 to `steps` for the largest; deflated, in base64."""
    scaled = weights_nNE.astype(np.float64) / (_largest(weights_nNE) or 1.0) * (steps - 1)
    packed = np.where(weights_nNE < 0, 0, 1 + scaled.round()).astype("<u2" if steps > 255 else "u1")
    return base64.b64encode(zlib.compress(packed.tobytes(), 9)).decode()


def _largest(weights_nNE: Weights) -> float:
    return max(float(weights_nNE.max()), 0.0)


def shown_favourites(routing: ImageRouting, number: int) -> list[list[tuple[str, float]]]:
    """For each expert of that layer its favourites' pictures and weights, none where it has none."""
    if not routing.favourites:
        return []
    favourites, layer = routing.favourites[number], routing.layers[number]
    most = max(LEAST_FAVOURITES, MOST_FAVOURITES // layer.num_experts)
    return [_pictures(favourites, expert, most) for expert in range(layer.num_experts)]


def _pictures(favourites: Favourites, expert: int, most: int) -> list[tuple[str, float]]:
    pairs = zip(favourites.patches[expert][:most], favourites.weights[expert][:most].tolist(), strict=True)
    return [(png_uri(patch), float(f"{weight:.4g}")) for patch, weight in pairs if weight >= 0]


def frame_of(routing: ImageRouting, number: int) -> tuple[int, int, int, int] | None:
    """Where in its favourites' pictures that layer's patch lies: x, y, width, height; None where it is all of them."""
    _, height, width, _ = routing.images.shape
    patch_height, patch_width = routing.layers[number].patch_size(height, width)
    whole_height, whole_width = routing.favourites[number].patches.shape[2:4]
    if (whole_height, whole_width) == (patch_height, patch_width):
        return None
    return (whole_width - patch_width) // 2, (whole_height - patch_height) // 2, patch_width, patch_height
