"""What a layer did with the patches of all shown images.

Shapes: n images, P patches an image, E experts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .routing import MapLayer

NOBODY = -1


@dataclass(frozen=True, eq=False)
class LayerSummary:
    """strongest_nP: the expert of the largest weight, −1 where none is active. served_E, strongest_E: share of the
    patches for which each expert is active, and the strongest. unserved: share of patches without an expert.
    """

    strongest_nP: NDArray[np.int64]
    served_E: NDArray[np.float64]
    strongest_E: NDArray[np.float64]
    unserved: float


def summarise(layer: MapLayer) -> LayerSummary:
    weights_nPE = layer.patch_weights
    active_nPE = weights_nPE >= 0
    strongest_nP = np.where(active_nPE.any(2), weights_nPE.argmax(2), NOBODY)  # of equal weights the first
    wins_E = np.bincount(strongest_nP[strongest_nP != NOBODY], minlength=layer.num_experts)
    return LayerSummary(
        strongest_nP=strongest_nP,
        served_E=active_nPE.mean((0, 1)),
        strongest_E=wins_E / strongest_nP.size,
        unserved=float((strongest_nP == NOBODY).mean()),
    )
