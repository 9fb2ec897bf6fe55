"""Precision: which type the forward runs in, on which device, and what keeps small gradients in it."""

from __future__ import annotations

import torch

PRECISIONS = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """The type of that name; ``auto`` is bfloat16 where the device computes it in hardware, else float32.

    On a CPU without such instructions bfloat16 is emulated, many times slower than float32.
    """
    if name != "auto":
        return PRECISIONS[name]
    fast = torch.cuda.is_bf16_supported(including_emulation=False) if device.type == "cuda" else cpu_has_bfloat16()
    return torch.bfloat16 if fast else torch.float32


def set_float32_products(name: str, device: torch.device) -> None:
    """Let products and convolutions of float32 round their factors to TF32 for `tf32`, and for nothing else.

    Raises `ValueError` where the device has no TF32.
    """
    if name == "tf32" and not (device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)):
        raise ValueError(
            f"train.precision is 'tf32', which this {device.type} does not compute; allowed: float32, or a GPU of"
            " compute capability 8.0 or more"
        )
    torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = name == "tf32"


def loss_scaler(precision: torch.dtype, device: torch.device) -> torch.amp.GradScaler:
    """What scales the loss so that float16 gradients do not vanish, and leaves a step out whose gradients overflow; for
    other types it does nothing.

    In float16 it waits for the device once a step.
    """
    return torch.amp.GradScaler(device.type, enabled=precision is torch.float16)


def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (AVX-512 BF16 or AMX)."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """Autocast to a lower precision; none for float32."""
    return torch.autocast(device.type, precision, enabled=precision is not torch.float32)
