"""What the page shows: a text's tokens, and the experts of each in every MoE layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class TokenLayer:
    """One MoE layer.

    name: such as ``transformer.h.3.mlp``. experts: each token's active experts, the strongest weight first, maybe none.
    weights: their weights.
    """

    name: str
    experts: tuple[tuple[int, ...], ...]
    weights: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class TokenRouting:
    """A text and how a model routed it. Raises `ValueError` where the parts do not fit together.

    facts: what a reader should know of it, such as checkpoint, gate and model. pieces: the text of each token, newlines
    included. losses: of each token given those before it, in nats; None where there is none before it.
    """

    title: str
    facts: Mapping[str, str]
    pieces: tuple[str, ...]
    losses: tuple[float | None, ...]
    layers: tuple[TokenLayer, ...]
    num_experts: int

    def __post_init__(self) -> None:
        if not self.pieces:
            raise ValueError("pieces is empty; allowed: at least one token")
        if not self.layers:
            raise ValueError("layers is empty: a model without MoE layers routes no token; allowed: at least one layer")
        if self.num_experts < 1:
            raise ValueError(f"num_experts is {self.num_experts}; allowed: 1 or more")
        _check_length("losses", self.losses, len(self.pieces))
        for token, loss in enumerate(self.losses):
            if loss is not None and not math.isfinite(loss):
                raise ValueError(f"losses[{token}] is {loss}; allowed: a finite number or None")
        for layer in self.layers:
            self._check_layer(layer)

    def _check_layer(self, layer: TokenLayer) -> None:
        _check_length(f"{layer.name}: experts", layer.experts, len(self.pieces))
        _check_length(f"{layer.name}: weights", layer.weights, len(self.pieces))
        for token, (experts, weights) in enumerate(zip(layer.experts, layer.weights, strict=True)):
            if len(experts) != len(weights):
                raise ValueError(
                    f"{layer.name}: token {token} has {len(experts)} experts and {len(weights)} weights; "
                    "allowed: a weight for each expert"
                )
            if len(set(experts)) < len(experts) or not all(0 <= expert < self.num_experts for expert in experts):
                allowed = f"numbers below {self.num_experts}, each once"
                raise ValueError(f"{layer.name}: token {token} has experts {experts}; allowed: {allowed}")
            if not all(map(math.isfinite, weights)) or any(a < b for a, b in pairwise(weights)):
                allowed = "finite numbers, the strongest first"
                raise ValueError(f"{layer.name}: token {token} has weights {weights}; allowed: {allowed}")


def _check_length(name: str, values: Sequence[object], tokens: int) -> None:
    if len(values) != tokens:
        raise ValueError(f"{name} has {len(values)} entries; allowed: {tokens}, one for each of pieces")
