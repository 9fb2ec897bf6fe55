"""Which patches each expert likes most, and which few of many images stand for all.

Shapes: n images, P patches an image, E experts, C candidates an image, K favourites, h × w pixels around a patch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .routing import INACTIVE, Favourites, ImageRouting, MapLayer, Pixels, Weights

FROM_AN_IMAGE = 2  # favourites of one expert at most, so that no picture of one texture takes all places
LEAST_PIXELS = 16  # smaller patches are shown with what lies around them: alone they show nothing


def favourites_of(routing: ImageRouting, most: int = 16) -> tuple[Favourites, ...]:
    """For each layer and expert the patches with the largest gate weight over all images, at most 2 of one image.

    Of equal weights, which gates that choose one expert give to all they choose, chance decides: always the same one.
    """
    if most < 1:
        raise ValueError(f"most is {most}; allowed: 1 or more")
    return tuple(_of_layer(routing.images, layer, most) for layer in routing.layers)


def keep(routing: ImageRouting, count: int) -> ImageRouting:
    """The same with `count` of its images, evenly spaced, or all where there are fewer; favourites of all of them."""
    if count < 1:
        raise ValueError(f"count is {count}; allowed: 1 or more")
    favourites = routing.favourites or favourites_of(routing)
    total = len(routing.images)
    kept = np.linspace(0, total - 1, min(count, total)).round().astype(int)
    return replace(
        routing,
        images=routing.images[kept],
        names=tuple(routing.names[image] for image in kept),
        labels=tuple(routing.labels[image] for image in kept),
        layers=tuple(replace(layer, weights=layer.weights[kept]) for layer in routing.layers),
        favourites=favourites,
    )


def _of_layer(images: Pixels, layer: MapLayer, most: int) -> Favourites:
    chance = np.random.default_rng(0)
    order_n = chance.permutation(len(images))
    weights_nCE, patches_nCE = _best_of_each_image(layer.patch_weights[order_n], chance)
    candidates, experts = weights_nCE.shape[1:]
    weights_EC = weights_nCE.reshape(-1, experts).T.astype(np.float32)
    patches_EC = patches_nCE.reshape(-1, experts).T
    chosen_EK = np.argsort(-weights_EC, axis=1, kind="stable")[:, :most]
    best_EK = np.take_along_axis(weights_EC, chosen_EK, axis=1)
    patches_EK = np.take_along_axis(patches_EC, chosen_EK, axis=1)
    cut_EKhw3 = _cut(images, layer, order_n[chosen_EK // candidates], patches_EK)
    absent_EK = best_EK == INACTIVE
    cut_EKhw3[absent_EK] = 0
    best_EK[absent_EK] = np.nan
    return Favourites(cut_EKhw3, best_EK)


def _best_of_each_image(weights_nPE: Weights, chance: np.random.Generator) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """For each image and expert the weights and the numbers of its heaviest patches, both (n, C, E)."""
    images, patches, _ = weights_nPE.shape
    shuffled_nP1 = chance.permuted(np.tile(np.arange(patches), (images, 1)), axis=1)[:, :, None]
    left_nPE = np.take_along_axis(weights_nPE, shuffled_nP1, axis=1)
    best, numbers = [], []
    for _ in range(min(FROM_AN_IMAGE, patches)):
        first_n1E = left_nPE.argmax(axis=1, keepdims=True)
        best.append(np.take_along_axis(left_nPE, first_n1E, axis=1))
        numbers.append(np.take_along_axis(shuffled_nP1, first_n1E, axis=1))
        np.put_along_axis(left_nPE, first_n1E, INACTIVE, axis=1)
    return np.concatenate(best, axis=1), np.concatenate(numbers, axis=1)


def _cut(images: Pixels, layer: MapLayer, image_EK: NDArray[np.intp], patch_EK: NDArray[np.intp]) -> Pixels:
    """(E, K, h, w, 3): these patches of these images; beyond an image's edge its outermost pixels go on."""
    _, rows, columns = layer.grid
    _, height, width, _ = images.shape
    patch_height, patch_width = layer.patch_size(height, width)
    above, beside = margin(patch_height), margin(patch_width)
    top_EK = patch_EK // columns * height // rows - above
    left_EK = patch_EK % columns * width // columns - beside
    y_EKh = (top_EK[..., None] + np.arange(patch_height + 2 * above)).clip(0, height - 1)
    x_EKw = (left_EK[..., None] + np.arange(patch_width + 2 * beside)).clip(0, width - 1)
    return images[image_EK[..., None, None], y_EKh[..., :, None], x_EKw[..., None, :]]


def margin(pixels: int) -> int:
    """How many pixels on either side of a patch of that many are shown with it."""
    return max(0, -(-(LEAST_PIXELS - pixels) // 2))
