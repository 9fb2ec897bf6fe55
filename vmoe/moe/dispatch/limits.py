"""What the fast paths cannot compute, each in a phrase that an error or the log can quote."""

from __future__ import annotations

import os
from importlib.util import find_spec

import torch

from ..experts import Experts

CAPABILITY = (8, 0)  # of CUDA devices, from which on the Triton kernels' types have products of their own


def why_not_fused(experts: Experts) -> str | None:
    """Why the fused path cannot compute these experts now, or None."""
    if experts.activation_name is None:
        return "the derivative of this activation is not known to it"
    if experts.training and experts.dropout:
        return "hidden rows are dropped out, which it does not do"
    return None


def why_not_triton(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why the Triton kernels cannot serve this device and type, or None."""
    if find_spec("triton") is None:
        return "Triton is not installed"
    if dtype == torch.float64:
        return "its kernels have no float64"
    if os.environ.get("TRITON_INTERPRET") == "1":
        return None  # they run as Python, on any device
    if device.type != "cuda":
        return f"its kernels run on CUDA devices, not on {device.type}"
    if torch.cuda.get_device_capability(device) < CAPABILITY:
        return "its kernels need compute capability {}.{} or later".format(*CAPABILITY)
    return None
