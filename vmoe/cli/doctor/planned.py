"""Checks of a config on this machine: is it valid, do its data open, does everything fit?"""

from __future__ import annotations

import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .finding import Finding, in_bytes, ok, problem, warning
from .isolated import NoAnswerError, isolated
from .situation import Situation

if TYPE_CHECKING:
    from vmoe.config import RunConfig

    from .ask_run import Split

TIGHT = 0.8  # of a memory: estimates leave out what kernels and allocators take
LATEST = 3  # last, previous, and the one that is being written
OF_PAGE_CACHE = 0.9  # of the free memory: the run itself needs some


def check_config(at: Situation) -> list[Finding]:
    """Whether the config is valid."""
    if at.config is None:
        return [problem("config", str(at.invalid), "mend what it names; `vmoe train --print-config` shows every key")]
    config = at.config
    experts = f", experts {config.moe.experts.kind}" if config.moe.experts else ""
    return [ok("config", f"{at.path}: {config.task}, {config.model.name}, gate {config.moe.gate.kind}{experts}")]


def check_output(at: Situation) -> list[Finding]:
    """Whether the run can write where it wants to."""
    if at.config is None:
        return []
    output = at.config.output
    try:
        resumes = isolated(partial(_resumes, at.config), at.timeout)
    except NoAnswerError as error:
        return [problem("output", str(error), "another output, or one of those")]
    if resumes:
        return [ok("output", f"{output}: goes on with the run there")]
    return [ok("output", str(output))]


def _resumes(config: RunConfig) -> bool:
    """Whether a run goes on there. Raises `ValueError` where none can, `OSError` where nothing can be written."""
    from vmoe.train.runfolder import RunFolder

    from ..resume import goes_on, resumable

    folder = RunFolder(config.output, writes=False)
    resumes = resumable(config, folder) is not None
    if not resumes and not goes_on(config):
        folder.refuse_if_used()
    with tempfile.TemporaryFile(dir=existing(config.output)):
        return resumes


def existing(path: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.is_dir())


def check_logs(at: Situation) -> list[Finding]:
    """Whether the packages of the logs that the config asks for are there."""
    if at.config is None:
        return []
    from vmoe.train.sinks import check_sinks

    try:
        check_sinks(at.config)
    except ValueError as error:
        return [problem("logs", str(error))]
    asked = {"TensorBoard": at.config.train.tensorboard, "Weights & Biases": at.config.train.wandb}
    return [ok("logs", ", ".join(["metrics.jsonl", *(name for name, wanted in asked.items() if wanted)]))]


def check_batch(at: Situation) -> list[Finding]:
    """Whether the batch can be divided among the processes."""
    if at.config is None:
        return []
    import torch

    from vmoe.train.distributed import Processes

    from ..tasks import assembly_of

    config, among = at.config, Processes(0, at.processes, 0, at.processes, torch.device("cpu"))
    try:
        size = assembly_of(config).micro_batch_size(among)
    except ValueError as error:
        return [problem("batch", str(error), "another data.batch_size, train.accumulate, or --processes N of the run")]
    parts = f"{at.processes} process{'es' * (at.processes > 1)} × {config.train.accumulate} (accumulate) × {size}"
    return [ok("batch", f"{config.data.batch_size} = {parts}")]


def check_data(at: Situation) -> list[Finding]:
    """Whether the data open and a few samples can be read; how many there are."""
    if at.config is None:
        return []
    prospect = at.prospect.value
    if prospect is None:
        more = "--timeout gives more time, --traceback to `vmoe train --dry-run` shows where"
        return [problem("data", f"to open them and build the model: {at.prospect.error}", more)]
    if prospect.no_data is not None:
        return [problem("data", prospect.no_data)]
    if prospect.no_task is not None:
        return [problem("task", prospect.no_task)]
    return [_check_split(split, prospect.unit) for split in prospect.splits] + [ok("labels", prospect.labels)]


def _check_split(split: Split, unit: str) -> Finding:
    text = f"{split.path}: {split.units:,} {unit}s an epoch, {in_bytes(split.bytes)}"
    if split.sidecar is False:
        return warning(split.key, f"{text}, no sidecar: nothing tells whether it is whole", "write it again with vmoe")
    return ok(split.key, f"{text}, with a digest (vmoe verify)" if split.sidecar else text)


def check_page_cache(at: Situation) -> list[Finding]:
    """Whether memory can hold the data, so that only the first epoch reads from the disk."""
    if at.config is None or at.prospect.value is None or not at.prospect.value.splits:
        return []
    size, free = sum(split.bytes for split in at.prospect.value.splits), at.machine.memory().free
    text = f"{in_bytes(size)} of data, {in_bytes(free)} of memory free"
    if size <= OF_PAGE_CACHE * free:
        return [ok("page cache", f"{text}: epochs after the first one read from memory")]
    advice = "a fast local disk, more memory, or smaller images (`vmoe write --max-resolution`); see `vmoe bench-data`"
    return [warning("page cache", f"{text}: every epoch reads from the disk", advice)]


def check_model(at: Situation) -> list[Finding]:
    """Whether the model can be built, and what it comes to."""
    if at.config is None or at.prospect.value is None or not at.prospect.value.splits:
        return []
    model = at.prospect.value.model
    if model is None:
        return [problem("model", at.prospect.value.no_model or "cannot be built")]
    text = f"{model.params:,} parameters, of them active {model.active:,}; {model.steps:,} steps"
    findings = [ok("model", f"{text}; on {model.device} in {model.precision}")]
    if at.config.model.pretrained:
        findings.append(ok("weights", f"{at.config.model.name}'s are fetched when the run starts; this was not tried"))
    return findings


def check_memory_of_run(at: Situation) -> list[Finding]:
    """The estimate of `vmoe train --dry-run` against the memory of the device, or a process's share of RAM."""
    if at.config is None or at.prospect.value is None or at.prospect.value.model is None:
        return []
    model, devices = at.prospect.value.model, at.devices.value
    gpus = devices.gpus if devices is not None and model.device == "cuda" else ()
    there = min(gpu.total for gpu in gpus) if gpus else at.machine.memory().total // at.processes
    needed = model.weights + model.activations
    text = (
        f"about {in_bytes(model.weights)} of weights, gradients and optimizer + {in_bytes(model.activations)} of"
        f" activations ({model.batch} a process), of {in_bytes(there)}"
    )
    if needed <= TIGHT * there:
        return [ok("memory", text)]
    advice = "model.grad_checkpointing=true, a larger train.accumulate, a smaller data.batch_size, or more processes"
    if at.config.model.grad_checkpointing:
        return [warning("memory", f"{text}; model.grad_checkpointing keeps fewer activations than that", advice)]
    return [(problem if needed > there else warning)("memory", text, advice)]


def check_disk(at: Situation) -> list[Finding]:
    """Room for checkpoints where the run writes."""
    if at.config is None:
        return []
    place = existing(at.config.output)
    free = isolated(lambda: shutil.disk_usage(place).free, at.timeout)
    model = at.prospect.value.model if at.prospect.value is not None else None
    if model is None:
        return [ok("disk", f"{in_bytes(free)} free at {place}")]
    keep = at.config.checkpoint
    count = LATEST + keep.keep_best + (model.steps // keep.keep_every if keep.keep_every else 0)
    needed = count * model.checkpoint
    text = f"{in_bytes(free)} free at {place}, {count} checkpoints take about {in_bytes(needed)}"
    if needed > free:
        return [problem("disk", text, "another output, or room there: what cannot be saved is lost with the run")]
    return [ok("disk", text)]
