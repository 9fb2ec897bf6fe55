"""Record: a scope in which a model's Routings are collected, forward by forward."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from torch import nn

from .layer import moe_layers
from .routing import Routing


class Record(Mapping[str, Routing]):
    """The Routing of each MoE layer in the latest forward of the scope, by the layer's name, in layer order.

    A layer that has not run since `clear` is absent. The Routings carry their graph, for balance losses; nothing
    is copied or detached.
    """

    def __init__(self) -> None:
        self._routings: dict[str, Routing] = {}

    def __getitem__(self, layer: str) -> Routing:
        return self._routings[layer]

    def __iter__(self) -> Iterator[str]:
        return iter(self._routings)

    def __len__(self) -> int:
        return len(self._routings)

    def add(self, layer: str, routing: Routing) -> None:
        self._routings[layer] = routing

    def clear(self) -> None:
        self._routings.clear()


@contextmanager
def record(model: nn.Module) -> Iterator[Record]:
    """Collect the Routings of a model's forwards::

        with vmoe.record(model) as routings:
            logits = model(inputs)
        routings["blocks.1.mlp"].active  # (B·N, E)

    Leaving the scope leaves no trace in the model. Scopes of one model do not nest: a second one raises
    `RuntimeError`. A model without MoE layers gives an empty record.
    """
    layers = list(moe_layers(model))
    if any(layer.listener is not None for _, layer in layers):
        raise RuntimeError("this model is being recorded already: leave that scope before opening another")
    routings = Record()
    try:
        for name, layer in layers:
            layer.listener = partial(routings.add, name)
        yield routings
    finally:
        for _, layer in layers:
            layer.listener = None
