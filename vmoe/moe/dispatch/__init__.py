"""Dispatch: run each expert on the tokens routed to it and combine. One contract, several paths, one chooser.

A path is a function ``(x_TD, features_TER, routing, experts) -> y_TD``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..experts import Experts
from ..routing import Routing
from .grouped import dispatch_grouped
from .reference import dispatch_reference
from .slots import dispatch_slots

Dispatch = Callable[[Tensor, Tensor | None, Routing, Experts], Tensor]


def dispatch_auto(x_TD: Tensor, features_TER: Tensor | None, routing: Routing, experts: Experts) -> Tensor:
    """The grouped path while compiling, since it has no loop over data; else the reference path."""
    path = dispatch_grouped if torch.compiler.is_compiling() else dispatch_reference
    return path(x_TD, features_TER, routing, experts)


PATHS: dict[str, Dispatch] = {
    "auto": dispatch_auto,
    "reference": dispatch_reference,
    "grouped": dispatch_grouped,
}


def dispatch(path: str, x_TD: Tensor, features_TER: Tensor | None, routing: Routing, experts: Experts) -> Tensor:
    """(T, D): the layer's output by the path of that name; slots have one path of their own."""
    if routing.slots is not None:
        return dispatch_slots(x_TD, routing.slots, experts)
    return PATHS[path](x_TD, features_TER, routing, experts)
