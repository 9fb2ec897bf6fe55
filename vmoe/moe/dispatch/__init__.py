"""Dispatch: run each expert on the tokens routed to it and combine. One contract, several paths, one chooser.

A path is a function ``(x_TD, features_TER, routing, experts, options) -> y_TD``. ``reference`` is the definition; the
others compute the same. features_TER may be (T, 1, R), where each token has one expert and these are its features.
Where a layer's experts lie on several processes, the path runs on each process's own (`expert_parallel`).
"""

from __future__ import annotations

from functools import partial

from torch import Tensor

from ..experts import Experts
from ..routing import Routing
from .choice import choose
from .expert_parallel import ExpertPlace, dispatch_expert_parallel
from .fused import dispatch_fused
from .grouped import dispatch_grouped
from .options import DispatchOptions
from .recompute import Path
from .reference import dispatch_reference
from .slots import dispatch_slots

PATHS: dict[str, Path] = {
    "reference": dispatch_reference,
    "grouped": dispatch_grouped,
    "tiled": partial(dispatch_fused, kernels="tiled"),
    "triton": partial(dispatch_fused, kernels="triton"),
}


def dispatch(
    options: DispatchOptions,
    x_TD: Tensor,
    features_TER: Tensor | None,
    routing: Routing,
    experts: Experts,
    place: ExpertPlace | None = None,
) -> Tensor:
    """(T, D): the layer's output by the path that the options name; slots have one path of their own.

    place: which of the experts are here, where other processes hold the others.
    Raises `ValueError` where the path named cannot compute these experts.
    """
    if routing.slots is not None:
        return dispatch_slots(x_TD, routing.slots, experts)
    path = PATHS[choose(x_TD, experts) if options.path == "auto" else options.path]
    if place is not None:
        path = partial(dispatch_expert_parallel, path=path, place=place)
    return path(x_TD, features_TER, routing, experts, options)
