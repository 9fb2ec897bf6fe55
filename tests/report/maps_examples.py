"""Small made-up routings of images, for tests."""

from __future__ import annotations

import numpy as np

from vmoe.report.routing_maps import ImageRouting, MapLayer


def weights_of(images=3, tokens=5, experts=3, seed=0):
    """(images, tokens, experts): about a third of the pairs active, no weight twice."""
    generator = np.random.default_rng(seed)
    weights = (1 + generator.permutation(images * tokens * experts).reshape(images, tokens, experts)) / 100
    return np.where(generator.random(weights.shape) < 0.3, weights, -1).astype(np.float32)


def image_routing(count=3, size=32, grid=(1, 2, 2), experts=3, layer_names=("blocks.0.mlp", "blocks.1.mlp"), **changes):
    """Noise routed by chance; changes: fields to set instead."""
    tokens = grid[0] + grid[1] * grid[2]
    parts = {
        "images": np.random.default_rng(1).integers(0, 256, (count, size, size, 3), dtype=np.uint8),
        "names": tuple(f"{number}.png" for number in range(count)),
        "labels": tuple(f"class {number}" for number in range(count)),
        "layers": tuple(
            MapLayer(name, grid, weights_of(count, tokens, experts, seed)) for seed, name in enumerate(layer_names)
        ),
    }
    return ImageRouting(**{**parts, **changes})


def routing_of(images, *layers):
    """These images (n, H, W, 3) and layers, with names that say nothing."""
    return ImageRouting(np.asarray(images, dtype=np.uint8), ("x",) * len(images), ("",) * len(images), layers)
