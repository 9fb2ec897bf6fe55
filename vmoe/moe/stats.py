"""Routing statistics: a model's counts, layer by layer, and what they say.

Counts are integers that add up over batches, processes and runs, and are divided only at the end. Nothing synchronises
with the device before `figures`, but for `counted`, once a forward.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .collective import largest_over_processes, sum_together
from .counts import LayerCounts, LoadCounts
from .figures import LoadFigures, RoutingFigures
from .layer import MoE, moe_layers
from .routing import Routing


def device_of(layer: MoE) -> torch.device:
    return next(layer.parameters()).device


class LoadStats:
    """What experts serve, over any number of forwards: cheap enough for every training step."""

    def __init__(self, model: nn.Module):
        self.layers = {
            name: LoadCounts(layer.experts.num_experts, device_of(layer)) for name, layer in moe_layers(model)
        }

    def update(self, routings: Mapping[str, Routing]) -> None:
        """Count one forward."""
        for name, routing in routings.items():
            self.layers[name].add(routing)

    def all_reduce(self) -> None:
        """Sum over all processes, each of which calls this once, also one that has counted nothing."""
        sum_together([tensor for counts in self.layers.values() for tensor in counts.tensors().values()])

    def clear(self) -> None:
        """Begin again at 0."""
        for counts in self.layers.values():
            counts.clear()

    def figures(self) -> dict[str, LoadFigures]:
        """Figures of each layer, by its name."""
        return {name: counts.figures() for name, counts in self.layers.items()}


class RoutingStats:
    """All statistics over any number of forwards of one model, on its device.

    num_labels: with it, `update` takes labels, and the figures tell how far experts tell them apart.
    positions: whether to count position by position too; sequences are then of one shape, or differ in length alone.
    """

    def __init__(self, model: nn.Module, num_labels: int = 0, *, positions: bool = False):
        self.positions = positions
        self.layers = {
            name: LayerCounts(layer.experts.num_experts, num_labels, device_of(layer))
            for name, layer in moe_layers(model)
        }

    def update(
        self, routings: Mapping[str, Routing], labels: Tensor | None = None, *, counted: Tensor | None = None
    ) -> None:
        """Count one forward.

        labels: (B,) int64, each of one of B equal groups of consecutive tokens: of a sequence, such as its class, or of
        one token, such as its id, where B is T. counted: (T,) bool, the tokens to count; labels are then (T,).

        Raises `ValueError`: tokens that are no equal groups for so many labels; or, with `counted`, another number of
        tokens or of labels, or a layer whose experts compute slots; or positions that do not fit those before.
        """
        if counted is not None:
            lengths = {name: routing.num_tokens for name, routing in routings.items()}
            lengths |= {} if labels is None else {"labels": len(labels)}
            if wrong := {name: length for name, length in lengths.items() if length != len(counted)}:
                raise ValueError(f"counted is of {len(counted)} tokens, and there are {wrong}; allowed: as many")
        if self.positions:
            for name, routing in routings.items():
                self.layers[name].add_positions(routing, counted)
        if counted is not None:
            chosen = counted.nonzero().squeeze(1)
            routings = {name: routing.select(chosen) for name, routing in routings.items()}
            labels = None if labels is None else labels[chosen]
        for name, routing in routings.items():
            self.layers[name].add(routing, labels)

    def all_reduce(self) -> None:
        """Sum over all processes, each of which calls this once, also one that has counted nothing."""
        if self.positions and self.layers:
            device = next(iter(self.layers.values())).tokens.device
            lengths = [len(counts.tokens_by_position) for counts in self.layers.values()]
            for counts, length in zip(self.layers.values(), largest_over_processes(lengths, device), strict=True):
                counts.grow_positions(length)
        sum_together([tensor for counts in self.layers.values() for tensor in counts.tensors().values()])

    def figures(self) -> dict[str, RoutingFigures]:
        """Figures of each layer, by its name."""
        return {name: counts.figures() for name, counts in self.layers.items()}
