"""Model-FLOP utilisation: FLOPs that the model needs over those that devices could compute (arXiv 2204.02311, B)."""

from __future__ import annotations

import re

import torch

from vmoe.config import RunConfig

from .distributed import Processes
from .precision import choose_precision

# Dense bfloat16 or float16 products with float32 sums, in 10^12 FLOPs a second, by device name; from data sheets.
PEAKS = {
    r"B200": 2250.0,
    r"H200|H100 80GB HBM3|H100 SXM|GH200": 989.0,
    r"H100 NVL": 835.0,
    r"H100 PCIe": 756.0,
    r"A100|A800": 312.0,
    r"L40S": 362.0,
    r"L4\b": 121.0,
    r"A40\b": 149.7,
    r"A10\b": 125.0,
    r"RTX 4090": 165.2,
    r"RTX 3090": 71.0,
}


def model_flops_utilisation(flops_per_second: float, config: RunConfig, processes: Processes) -> float | None:
    """The share of the peak, from 0 to 1; None for a device whose peak is not known (`train.peak_tflops` states it)."""
    peak = config.train.peak_tflops or known_peak(config, processes.device)
    return None if peak is None else flops_per_second / (peak * 1e12 * processes.world)


def known_peak(config: RunConfig, device: torch.device) -> float | None:
    """In 10^12 FLOPs a second; None for other devices, and for float32, whose peak depends on how products are set."""
    if device.type != "cuda" or choose_precision(config.train.precision, device) is torch.float32:
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for pattern, peak in PEAKS.items() if re.search(pattern, name)), None)
