"""θ at evaluation: a trained Routing-Free model at another threshold than it was trained with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from torch import nn

from .gates import RoutingFreeGate
from .layer import moe_layers


@contextmanager
def at_threshold(model: nn.Module, threshold: float) -> Iterator[None]:
    """Within, every MoE layer of a Routing-Free model compares its scores with another θ::

        with at_threshold(model, 0.8):
            logits = model(inputs)

    A larger θ leaves fewer pairs active, hence fewer FLOPs (arXiv 2604.00801). Weights stay as they are, and so does
    the temperature τ of the threshold θ/τ. Leaving the scope brings back the model's own θ.

    Raises `ValueError`: a θ that is not positive and finite, or a model without Routing-Free layers.
    """
    gates = [layer.gate for _, layer in moe_layers(model) if isinstance(layer.gate, RoutingFreeGate)]
    if not gates:
        raise ValueError(f"{type(model).__name__} has no Routing-Free layer whose threshold could be set")
    own = [gate.spec for gate in gates]
    changed = [replace(spec, threshold=threshold) for spec in own]
    try:
        for gate, spec in zip(gates, changed, strict=True):
            gate.spec = spec
        yield
    finally:
        for gate, spec in zip(gates, own, strict=True):
            gate.spec = spec
