"""Which path runs a layer's experts: asked once for each device, type and kind of experts, logged, overridable."""

from __future__ import annotations

import logging
from functools import cache

import torch
from torch import Tensor

from ..experts import Experts
from .grouped_linear import autocast_type
from .limits import why_not_fused, why_not_triton

logger = logging.getLogger(__name__)


def choose(x_TD: Tensor, experts: Experts) -> str:
    """The name of the path for these tokens and experts."""
    return _constant(str(x_TD.device), autocast_type(x_TD), why_not_fused(experts), torch.compiler.is_compiling())


def _constant(device: str, dtype: torch.dtype, unfused: str | None, compiling: bool) -> str:
    """`choose_path` for a graph that is being captured, too: called there, not captured."""
    return choose_path(device, dtype, unfused, compiling)


# What `torch.compiler.assume_constant_result` sets; calling that would import the whole compiler with this package.
_constant._dynamo_marked_constant = True  # type: ignore[attr-defined]


@cache
def choose_path(device: str, dtype: torch.dtype, unfused: str | None, compiling: bool) -> str:
    """The fused path where it can compute these experts, by the kernels of the device; else one that takes anything.

    unfused: why the fused path cannot, or None. compiling: for `torch.compile`, which a loop over data would break up.
    """
    on_cuda = torch.device(device).type == "cuda"
    if unfused is None and on_cuda:
        unfused = why_not_triton(torch.device(device), dtype)
    if unfused is None:
        path, why = ("triton" if on_cuda else "tiled"), "the whole expert is one operator"
    else:
        path, why = ("grouped" if on_cuda or compiling else "reference"), f"the fused path is out: {unfused}"
    name = str(dtype).removeprefix("torch.")
    logger.info("experts on %s in %s%s: %s (%s)", device, name, ", compiled" if compiling else "", path, why)
    return path
