"""Recomputation for the paths that autograd differentiates; the fused path has its own, which spends less."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..experts import Experts
from ..routing import Routing
from .options import DispatchOptions

Path = Callable[[Tensor, Tensor | None, Routing, Experts, DispatchOptions], Tensor]


def recomputable(path: Path) -> Path:
    """The path, run again in the backward pass where the options ask for it."""

    @wraps(path)
    def run(
        x_TD: Tensor, features_TER: Tensor | None, routing: Routing, experts: Experts, options: DispatchOptions
    ) -> Tensor:
        inputs = (x_TD, features_TER, routing, experts, options)
        return checkpoint(path, *inputs, use_reentrant=False) if options.recompute else path(*inputs)

    return run
