"""How a layer's experts are run; what they compute does not depend on it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DispatchOptions:
    """path: ``auto``, or the name of one of `vmoe.moe.dispatch.PATHS`.

    recompute: keep no hidden rows for the backward pass, which computes them again.
    capacity: of a gate without a fixed number of pairs, the share of all T·E pairs that room is made for, so that the
    number need not be read from the device; None reads it.
    """

    path: str = "auto"
    recompute: bool = False
    capacity: float | None = None
