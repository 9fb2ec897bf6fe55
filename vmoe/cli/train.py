"""`vmoe train`: assemble a run from its config and train it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import torch
from timm.layers import use_reentrant_ckpt
from timm.utils import ModelEmaV3
from torch import nn

from vmoe.config import ConfigError, RunConfig, dump_config, load_config
from vmoe.moe import balance_for
from vmoe.train.augment import Augment
from vmoe.train.checkpoint import read_checkpoint
from vmoe.train.cost import measure_cost
from vmoe.train.distributed import Processes, barrier, start_processes
from vmoe.train.loop import fit
from vmoe.train.optim import build_optimizer, build_schedule
from vmoe.train.result import describe_result
from vmoe.train.runfolder import RunFolder
from vmoe.train.state import Parts, TrainState

from .assemble import build_model, describe_model, flatten, open_data
from .outcome import announce
from .plan import describe_plan
from .weights import Start, start_of

# What a resumed run may change: where it is kept, how long the trial is, how it looks at itself.
MAY_DIFFER = ("output", "schedule.max_steps", "data.workers", "data.timeout", "train.resume", "train.log_every")


def run(options: argparse.Namespace) -> None:
    overrides = [argument for argument in options.arguments if "=" in argument]
    paths = options.config + [argument for argument in options.arguments if "=" not in argument]
    if not paths:
        raise ConfigError("no config given: vmoe train CONFIG [a.b=value …]; configs/ holds some")
    configs = [load_config(path, overrides) for path in paths]  # all are valid before the first one starts
    check_outputs(configs)
    for config in configs:
        if options.print_config:
            print(dump_config(config), end="")
            continue
        with start_processes(config.train.device) as processes:
            train(config, processes, dry_run=options.dry_run)


def check_outputs(configs: Sequence[RunConfig]) -> None:
    """Raise `ConfigError` if two runs would write to one folder."""
    outputs = [config.output for config in configs]
    for output in outputs:
        if outputs.count(output) > 1:
            raise ConfigError(f"output is '{output}' in {outputs.count(output)} configs; allowed: a folder for each")


def train(config: RunConfig, processes: Processes, *, dry_run: bool) -> None:
    """Train a config to its end, or only say what that would take."""
    folder = RunFolder(config.output, writes=processes.first)
    checkpoint = resumable(config, folder)
    if checkpoint is None and not dry_run:
        folder.refuse_if_used()
    start = start_of(config) if checkpoint is None else None  # a resumed run goes on from its own weights alone
    state, parts = build(config, processes, folder, start)
    if processes.first:
        print(describe_plan(state, parts), flush=True)
    if dry_run:
        return
    if checkpoint is not None:
        state.load(checkpoint)
    barrier()  # every process has looked at the folder before the first one writes to it
    folder.start(dump_config(config), processes, step=state.step)
    evaluation = fit(state, parts)
    result = describe_result(
        evaluation,
        parts.cost,
        config,
        steps=state.step,
        train_flops=state.train_flops,
        images_per_second=state.images_per_second,
    )
    if processes.first:
        announce(result, config.output)


def build(
    config: RunConfig, processes: Processes, folder: RunFolder, start: Start | None = None
) -> tuple[TrainState, Parts]:
    """Everything a run is made of. Raises `ValueError` for whatever cannot work, before any training.

    start: the checkpoint whose weights the model begins with.
    """
    data = open_data(config, processes)
    torch.manual_seed(config.seed)
    model = build_model(config, len(data.train.classes), start).to(processes.device)
    cost = measure_cost(model, config.data.image_size)
    if config.model.grad_checkpointing:
        enable_checkpointing(model)
    optimizer = build_optimizer(model, config.optimizer)
    state = TrainState(model, optimizer, balance_for(model).to(processes.device), build_ema(config, model))
    parts = Parts(
        config=config,
        processes=processes,
        train_loader=data.train,
        val_loader=data.val,
        prepare=data.prepare.to(processes.device),
        augment=Augment(
            config.augment,
            label_smoothing=config.train.label_smoothing,
            num_classes=len(data.train.classes),
            device=processes.device,
        ),
        schedule=build_schedule(optimizer, config.schedule, len(data.train) // config.train.accumulate),
        cost=cost,
        folder=folder,
        identity=describe_model(config, data.train.classes),
    )
    return state, parts


def enable_checkpointing(model: nn.Module) -> None:
    """Activation checkpointing, by the host's own method. Raises `ConfigError` for a host without one."""
    method = getattr(model, "set_grad_checkpointing", None)
    if method is None:
        raise ConfigError(f"model.grad_checkpointing is true, but {type(model).__name__} has none; allowed: false")
    if use_reentrant_ckpt():
        raise ConfigError(
            "timm is set to reentrant checkpointing, which loses the gradient of balance losses; unset it"
        )
    method()


def build_ema(config: RunConfig, model: nn.Module) -> ModelEmaV3 | None:
    """timm's moving average of the weights, if the config asks for one."""
    return ModelEmaV3(model, decay=config.train.ema_decay) if config.train.ema_decay else None


def resumable(config: RunConfig, folder: RunFolder) -> dict[str, Any] | None:
    """The checkpoint to go on from, or None. Raises `ConfigError` if it is of another config."""
    if config.train.resume == "never" or not folder.last.exists():
        return None
    checkpoint = read_checkpoint(folder.last)
    now, then = flatten(config.model_dump(mode="json")), flatten(checkpoint["config"])
    changed = [key for key in sorted({*now, *then}) if key not in MAY_DIFFER and now.get(key) != then.get(key)]
    if changed:
        listed = "; ".join(f"{key} is {now.get(key)!r}, was {then.get(key)!r}" for key in changed)
        raise ConfigError(
            f"cannot go on with the run in {folder.path}: {listed}. Allowed to differ: {', '.join(MAY_DIFFER)}"
        )
    return checkpoint
