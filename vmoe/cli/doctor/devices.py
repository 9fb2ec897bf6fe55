"""Checks of torch and its devices, on what `ask_devices` was answered."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from .finding import Finding, in_bytes, ok, problem, warning
from .situation import Situation

if TYPE_CHECKING:
    from .ask_devices import Gpu

TAKEN = 0.05  # of a GPU's memory: what more is missing, something else uses
TF32 = (8, 0)  # the compute capability from which on float32 products may use it


def check_imports(at: Situation) -> list[Finding]:
    """Whether torch and what is compiled against it can be imported together, in one process."""
    if at.devices.value is None:
        advice = "nothing that needs torch is looked at; `python -c 'import torch'` shows more, --timeout waits longer"
        return [problem("imports", f"torch cannot be used: {at.devices.error}", advice)]
    broken = at.devices.value.broken
    found = [problem(name, f"cannot be imported: {why}", f"a {name} that fits torch") for name, why in broken.items()]
    return found or [ok("imports", "torch, torchvision and timm")]


def check_cuda(at: Situation) -> list[Finding]:
    """Whether torch's CUDA and the driver meet."""
    devices, driver = at.devices.value, at.machine.driver()
    if devices is None:
        return []
    asked = at.config is not None and at.config.train.device == "cuda"
    judge = problem if asked else warning
    built = f"torch for CUDA {devices.cuda}" if devices.cuda else "torch without CUDA"
    if devices.gpus:
        return [ok("CUDA", f"{built}, driver {driver or 'unknown'}")]
    if driver is None:
        none = f"{built}, no NVIDIA driver: runs are on the CPU"
        return [problem("CUDA", none, "train.device=cpu, or auto")] if asked else [ok("CUDA", none)]
    if devices.cuda is None:
        return [judge("CUDA", f"{built}, beside driver {driver}", "install a build of torch with CUDA (pytorch.org)")]
    text = f"{built}, driver {driver}, but no GPU can be used: {devices.refused or 'none is seen'}"
    return [judge("CUDA", text, "a newer driver, torch for an older CUDA, or another CUDA_VISIBLE_DEVICES")]


def check_gpus(at: Situation) -> list[Finding]:
    """Each GPU, and whether there are as many as processes."""
    devices = at.devices.value
    if devices is None or not devices.gpus:
        return []
    found = [_check_gpu(number, gpu) for number, gpu in enumerate(devices.gpus)]
    if at.processes > len(devices.gpus):
        text = f"{len(devices.gpus)} for {at.processes} processes, of which each needs one"
        found.append(problem("GPUs", text, f"--processes {len(devices.gpus)}, or fewer"))
    elif len({(gpu.name, gpu.total) for gpu in devices.gpus}) > 1:
        found.append(warning("GPUs", "they differ: a step takes as long as the slowest one", "CUDA_VISIBLE_DEVICES"))
    return found


def _check_gpu(number: int, gpu: Gpu) -> Finding:
    name, capability = f"cuda:{number}", ".".join(map(str, gpu.capability))
    text = f"{gpu.name}, compute capability {capability}, {in_bytes(gpu.free)} of {in_bytes(gpu.total)} free"
    if gpu.fault is not None:
        return problem(name, f"{text}; it fails: {gpu.fault}", "a build of torch for this GPU; see also nvidia-smi")
    if gpu.free < (1 - TAKEN) * gpu.total:
        return warning(name, f"{text}: something else uses it", "nvidia-smi lists what; end it, or take another GPU")
    return ok(name, text)


def check_precision(at: Situation) -> list[Finding]:
    """What train.precision=auto takes, and whether utilisation can be reported."""
    devices = at.devices.value
    if devices is None:
        return []
    if not devices.gpus or (at.config is not None and at.config.train.device == "cpu"):
        found = [ok("precision", f"auto is {'bfloat16' if devices.bfloat16 else 'float32'} on this CPU")]
        return found + _check_asked(at, on_gpu=False, bfloat16=devices.bfloat16, tf32=False)
    gpu = devices.gpus[0]
    tf32 = "TF32 for float32 products" if gpu.capability >= TF32 else "no TF32"
    peak = f"peak {gpu.peak:g} TFLOPS in bfloat16" if gpu.peak else "peak not known: train.peak_tflops states it"
    text = f"auto is {'bfloat16' if gpu.bfloat16 else 'float32'}; {tf32}; {peak}"
    advice = "" if gpu.bfloat16 else "expect a fraction of a newer GPU's speed"
    found = [(ok if gpu.bfloat16 else partial(warning, advice=advice))("precision", text)]
    return found + _check_asked(at, on_gpu=True, bfloat16=gpu.bfloat16, tf32=gpu.capability >= TF32)


def _check_asked(at: Situation, *, on_gpu: bool, bfloat16: bool, tf32: bool) -> list[Finding]:
    """Whether the device has what train.precision names."""
    asked = None if at.config is None else at.config.train.precision
    name, where = f"{asked}", "this GPU" if on_gpu else "this CPU"
    if asked == "tf32" and not tf32:
        return [problem(name, f"train.precision asks for it, {where} does not compute it", "train.precision=float32")]
    if asked == "bfloat16" and not bfloat16:
        text = f"train.precision asks for it, {where} has no instructions for it and emulates it slowly"
        return [warning(name, text, "train.precision=float32" + ", or float16" * on_gpu)]
    if asked == "float16" and not on_gpu:
        return [warning(name, f"train.precision asks for it, which is slow on {where}", "train.precision=auto")]
    if asked == "float16" and bfloat16:
        return [ok(name, "as train.precision asks; the loss is scaled, and each step waits for the device")]
    return [] if asked in (None, "auto") else [ok(name, "as train.precision asks")]


def check_distributed(at: Situation) -> list[Finding]:
    """Whether processes can talk to each other."""
    devices = at.devices.value
    if devices is None:
        return []
    needed, there = ("NCCL", devices.nccl) if devices.gpus else ("gloo", "there" if devices.gloo else None)
    if there is not None:
        return [ok("distributed", f"{needed} {there}")]
    judge = problem if at.processes > 1 else warning
    return [judge("distributed", f"torch has no {needed}: several processes cannot train", "another build of torch")]


def check_experts(at: Situation) -> list[Finding]:
    """Which path runs each kind of experts (`vmoe.moe.dispatch.choice`)."""
    devices = at.devices.value
    if devices is None:
        return []
    return [ok("experts", f"{one.experts}, on {one.device} in {one.precision}: {one.chosen}") for one in devices.paths]
