"""How a model routes images: its weights at every patch, as `vmoe.report.routing_maps` shows them.

Shapes: n images, T tokens of all of them, N tokens of one, E experts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vmoe.backbones.grid import token_grid
from vmoe.moe import Routing, evaluating, moe_layers, record
from vmoe.report.routing_maps import ImageRouting, MapLayer

BATCH = 32  # images of a forward


class Forwarded(NamedTuple):
    """logits: (n, classes). layers, left_out: as in `ImageRouting`. Both are on the CPU."""

    logits: Tensor
    layers: tuple[MapLayer, ...]
    left_out: tuple[str, ...]


def route_images(
    model: nn.Module,
    images: Tensor,
    prepare: Callable[[Tensor], Tensor],
    names: tuple[str, ...],
    labels: tuple[str, ...],
) -> ImageRouting:
    """The routing of uint8 images (n, 3, H, W), in evaluation mode, on the model's device.

    prepare: makes of them what the model reads. names, labels: one an image. Raises `ValueError` for images that are
    not square, or for names or labels of another number.
    """
    _, layers, left_out = forward_images(model, images, prepare)
    return ImageRouting(images.permute(0, 2, 3, 1).cpu().numpy(), names, labels, layers, left_out=left_out)


@torch.no_grad()
def forward_images(model: nn.Module, images: Tensor, prepare: Callable[[Tensor], Tensor]) -> Forwarded:
    """What the model makes of the images, and how it routes them; as `route_images`.

    Layers whose tokens lie in no known order of the image are left out.
    """
    height, width = images.shape[2:]
    if height != width:
        raise ValueError(f"images are {height} × {width} pixels; allowed: square ones")
    device = next(model.parameters()).device
    logits: list[Tensor] = []
    weights: dict[str, list[Tensor]] = {name: [] for name, _ in moe_layers(model)}
    shapes: dict[str, tuple[int, ...]] = {}
    with evaluating(model), record(model) as routings:
        for batch in images.split(BATCH):
            logits.append(model(prepare(batch.to(device))).float().cpu())
            for name, routing in routings.items():
                shapes[name] = tuple(routing.shape[1:])
                weights[name].append(active_weights(routing).unflatten(0, (routing.shape[0], -1)).float().cpu())
    layers = []
    for name, shape in shapes.items():
        grid = token_grid(model, shape, height)
        if grid is not None:
            layers.append(MapLayer(name, (grid.prefix, grid.rows, grid.columns), torch.cat(weights[name]).numpy()))
    shown = {layer.name for layer in layers}
    return Forwarded(torch.cat(logits), tuple(layers), tuple(name for name in weights if name not in shown))


def active_weights(routing: Routing) -> Tensor:
    """(T, E): the weights of active pairs, −1 for the others; a weight of 0 is possible."""
    return routing.weights.masked_fill(~routing.active, -1)
