"""Precision: which type the forward runs in, on which device."""

from __future__ import annotations

import torch

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """The type of that name; ``auto`` is bfloat16 where the device computes it in hardware, else float32.

    On a CPU without such instructions bfloat16 is emulated, many times slower than float32.
    """
    if name != "auto":
        return PRECISIONS[name]
    fast = torch.cuda.is_bf16_supported(including_emulation=False) if device.type == "cuda" else cpu_has_bfloat16()
    return torch.bfloat16 if fast else torch.float32


def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (AVX-512 BF16 or AMX)."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """Autocast to a lower precision; none for float32."""
    return torch.autocast(device.type, precision, enabled=precision is not torch.float32)
