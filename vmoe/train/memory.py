"""What a process takes of memory, in bytes: tensors on its GPU, or on a CPU all that it has in RAM.

Nothing here waits for a device.
"""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path

import torch

GIB = 2**30
SELF = Path("/proc/self")


def start_of_peak(device: torch.device) -> int:
    """Count the peak anew from here; what is taken now. A kernel that cannot do so counts from the process's start."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    with suppress(OSError):
        (SELF / "clear_refs").write_text("5")
    return resident()


def peak(device: torch.device) -> int:
    """The most that was taken since `start_of_peak`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    lines = (SELF / "status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def reserved(device: torch.device) -> int | None:
    """Of a GPU's memory, the most that torch held since `start_of_peak`, tensors or not; None on a CPU."""
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None


def resident() -> int:
    """Of RAM, now; memory that is shared with other processes is part of it."""
    return int((SELF / "statm").read_text().split()[1]) * resource.getpagesize()


class MemoryOfLines:
    """Memory for the lines of a log, in GiB: on a GPU the most that tensors took since the line before, on a CPU what
    is resident. key: what that is called.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.key = "gpu_peak_gib" if device.type == "cuda" else "resident_gib"
        if device.type == "cuda":
            start_of_peak(device)

    def since_last(self) -> float:
        if self.device.type != "cuda":
            return resident() / GIB
        found = peak(self.device)
        start_of_peak(self.device)
        return found / GIB
