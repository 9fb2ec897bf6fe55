"""The definition of what a MoE layer computes: a loop over experts. Any device, any type, any routing.

Shapes: T tokens, D width, E experts, R rank, P tokens of one expert.
"""

from __future__ import annotations

from torch import Tensor

from ..experts import Experts
from ..routing import Routing
from .options import DispatchOptions
from .recompute import recomputable


@recomputable
def dispatch_reference(
    x_TD: Tensor, features_TER: Tensor | None, routing: Routing, experts: Experts, options: DispatchOptions
) -> Tensor:
    """``y_t = Σ_{e active for t} w_{t,e} · expert_e(x_t)``; exactly 0 for a token without an active expert.

    Every expert runs, if on no rows, so that its weights always receive a gradient (of zeros), as data-parallel
    training needs.
    """
    y_TD = None
    for e, expert in enumerate(experts.each()):
        tokens_P = routing.active[:, e].nonzero().squeeze(1)
        z_PR = None if features_TER is None else features_TER[tokens_P, min(e, features_TER.shape[1] - 1)]
        rows_PD = expert(x_TD[tokens_P], z_PR)
        weighted_PD = rows_PD * routing.weights[tokens_P, e, None].to(rows_PD.dtype)
        if y_TD is None:
            y_TD = rows_PD.new_zeros(len(x_TD), rows_PD.shape[1])
        y_TD = y_TD.index_add(0, tokens_P, weighted_PD)
    assert y_TD is not None, "there is at least one expert"
    return y_TD
