"""Dispatch: run each expert on the tokens routed to it and combine. One contract, several paths, one chooser.

A path is a function ``(x_TD, features_TER, routing, experts) -> y_TD``.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ..experts import Experts
from ..routing import Routing
from .reference import dispatch_reference

Dispatch = Callable[[Tensor, Tensor | None, Routing, Experts], Tensor]

PATHS: dict[str, Dispatch] = {"reference": dispatch_reference}


def choose_dispatch(name: str) -> Dispatch:
    """The path of that name; ``auto`` is the reference path, the only one so far."""
    return PATHS["reference" if name == "auto" else name]
