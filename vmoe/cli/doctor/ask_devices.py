"""What torch says of itself and its devices; asked in a process of its own, since a driver may hang or crash."""

from __future__ import annotations

import logging
import re
import warnings
from importlib import import_module
from typing import NamedTuple

import torch
import torch.distributed
from torch.nn import functional

from vmoe.moe import Experts, GluExperts, LowRankGluExperts, MlpExperts
from vmoe.moe.dispatch.choice import choose_path, logger
from vmoe.moe.dispatch.limits import why_not_fused
from vmoe.train.precision import choose_precision
from vmoe.train.utilisation import PEAKS

IMPORTED = ("torchvision", "timm")  # compiled against torch, or built on what is


class Gpu(NamedTuple):
    """total, free: bytes. bfloat16: whether it computes it in hardware. peak: TFLOPS, where they are known.
    fault: what went wrong with a small product on it.
    """

    name: str
    capability: tuple[int, int]
    total: int
    free: int
    bfloat16: bool
    peak: float | None
    fault: str | None


class Path(NamedTuple):
    """Which dispatch path runs these experts, and why, as the log of a run would say it."""

    experts: str
    device: str
    precision: str
    chosen: str


class Devices(NamedTuple):
    """cuda: the version torch was built for, None for a build without. refused: what CUDA said where it sees no GPU.
    nccl: its version. bfloat16: whether the CPU computes it. broken: packages that cannot be imported, and why.
    """

    cuda: str | None
    refused: str
    gpus: tuple[Gpu, ...]
    nccl: str | None
    gloo: bool
    bfloat16: bool
    paths: tuple[Path, ...]
    broken: dict[str, str]


def ask_devices() -> Devices:
    """Look at everything that torch can use."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
    gpus = tuple(map(_gpu, range(torch.cuda.device_count()))) if available else ()
    places = [torch.device("cpu"), *([torch.device("cuda", 0)] if gpus else [])]
    return Devices(
        cuda=torch.version.cuda,
        refused=" ".join(str(warning.message).strip() for warning in caught) if not available else "",
        gpus=gpus,
        nccl=".".join(map(str, torch.cuda.nccl.version())) if gpus and torch.distributed.is_nccl_available() else None,
        gloo=torch.distributed.is_available() and torch.distributed.is_gloo_available(),
        bfloat16=choose_precision("auto", torch.device("cpu")) is torch.bfloat16,
        paths=tuple(path for place in places for path in paths_on(place)),
        broken=dict(broken for name in IMPORTED if (broken := _import(name))),
    )


def paths_on(device: torch.device) -> list[Path]:
    """The path of each kind of experts, in the precision that a run takes by itself; alike ones together."""
    dtype = choose_precision("auto", device)
    found: dict[str, list[str]] = {}
    for kind, experts in kinds_of_experts().items():
        found.setdefault(_sentence(device, dtype, experts), []).append(kind)
    name = str(dtype).removeprefix("torch.")
    return [Path(", ".join(kinds), device.type, name, chosen) for chosen, kinds in found.items()]


def kinds_of_experts() -> dict[str, Experts]:
    """A small stack of each kind, and of one whose activation has no derivative known to the fused path."""
    return {
        "mlp": MlpExperts(2, 8, 8, functional.gelu),
        "glu": GluExperts(2, 8, 8, functional.silu),
        "lowrank_glu": LowRankGluExperts(2, 8, 8, 4, functional.silu),
        "of another activation": MlpExperts(2, 8, 8, functional.softsign),
        "with dropout": MlpExperts(2, 8, 8, functional.gelu, dropout=0.1),
    }


def _sentence(device: torch.device, dtype: torch.dtype, experts: Experts) -> str:
    """What the chooser logs of its choice, after what it chose for."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        choose_path.__wrapped__(str(device), dtype, why_not_fused(experts), False)  # what is known is not logged again
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    return said[0].partition(": ")[2]


def _gpu(number: int) -> Gpu:
    device = torch.device("cuda", number)
    name = torch.cuda.get_device_name(device)
    fault, free, total = None, 0, torch.cuda.get_device_properties(device).total_memory
    with torch.cuda.device(device):
        try:
            free, total = torch.cuda.mem_get_info(device)
            ones = torch.ones(64, 64, device=device, dtype=torch.bfloat16)
            if float((ones @ ones)[0, 0]) != 64:
                fault = "a small product came out wrong"
        except RuntimeError as error:  # no kernels for this GPU, no memory left, a broken driver
            fault = str(error).splitlines()[0]
        bfloat16 = choose_precision("auto", device) is torch.bfloat16
    peak = next((peak for pattern, peak in PEAKS.items() if re.search(pattern, name)), None)
    return Gpu(name, torch.cuda.get_device_capability(device), total, free, bfloat16, peak, fault)


def _import(name: str) -> tuple[str, str] | None:
    """The name and why it cannot be imported, if it cannot."""
    try:
        import_module(name)
    except Exception as error:  # compiled packages that do not fit raise whatever they like
        return name, f"{type(error).__name__}: {error}"
    return None
