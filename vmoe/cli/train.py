"""`vmoe train`: assemble a run from its config and train it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import nn

from vmoe.config import ConfigError, RunConfig, dump_config, load_config
from vmoe.data.errors import lost_worker
from vmoe.moe import balance_for
from vmoe.train.cost import measure_cost
from vmoe.train.distributed import Processes, barrier, start_processes
from vmoe.train.interrupt import Interrupted
from vmoe.train.loop import evaluated_model, fit
from vmoe.train.optim import build_optimizer, build_schedule
from vmoe.train.parallel import Layout, build_layout
from vmoe.train.precision import choose_precision, loss_scaler, set_float32_products
from vmoe.train.result import describe_result, headline
from vmoe.train.runfolder import RunFolder
from vmoe.train.sinks import check_sinks, open_sinks
from vmoe.train.state import Parts, TrainState
from vmoe.train.utilisation import model_flops_utilisation

from .class_files import save_class_accuracy
from .estimate import describe_estimate
from .outcome import Outcome, announce
from .plan import describe_plan
from .resume import check_alike, goes_on, keep_batch, resumable
from .routing_files import maps_of, save_routing
from .tasks import Data, Start, assembly_of
from .weights import start_of

INTERRUPTED = 75  # exit status: stopped by a signal, and goes on when it is started again (EX_TEMPFAIL of sysexits.h)


def run(options: argparse.Namespace) -> int:
    """Returns the exit status: 0, or `INTERRUPTED`."""
    if options.time is not None:
        check_time(options)
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
        with start_processes(config.train.device, timeout=config.train.timeout) as processes:
            try:
                train(config, processes, dry_run=options.dry_run, seconds=options.time)
            except Interrupted as interrupted:
                if processes.first:
                    print(f"vmoe train: {interrupted}; {config.output} goes on with train.resume=auto", file=sys.stderr)
                return INTERRUPTED
            except RuntimeError as error:  # torch raises it wherever the process just is when a worker ends
                raise lost_worker(config.data.train, error) or error from None
    return 0


def check_time(options: argparse.Namespace) -> None:
    """Raise `ValueError` unless --time can be what it says."""
    if not options.dry_run:
        raise ValueError(
            f"--time is {options.time:g} without --dry-run; allowed: vmoe train CONFIG --dry-run --time 20"
        )
    if not 0 < options.time < float("inf"):
        raise ValueError(f"--time is {options.time:g}; allowed: seconds, more than 0")


def check_outputs(configs: Sequence[RunConfig]) -> None:
    """Raise `ConfigError` if two runs would write to one folder."""
    outputs = [config.output for config in configs]
    for output in outputs:
        if outputs.count(output) > 1:
            raise ConfigError(f"output is '{output}' in {outputs.count(output)} configs; allowed: a folder for each")


def train(config: RunConfig, processes: Processes, *, dry_run: bool, seconds: float | None = None) -> None:
    """Train a config to its end, or only say what that would take; seconds: by timing it for about so long."""
    folder = RunFolder(config.output, writes=processes.first, keep=config.checkpoint)
    checkpoint = resumable(config, folder)
    check_alike(checkpoint, processes)
    if checkpoint is not None:
        config = keep_batch(config, checkpoint, processes)
    elif not dry_run and not goes_on(config):
        folder.refuse_if_used()
    start = start_of(config) if checkpoint is None else None  # a resumed run goes on from its own weights alone
    state, parts = build(config, processes, folder, start)
    if processes.first:
        print(describe_plan(state, parts), flush=True)
    if checkpoint is not None:
        load_state(state, checkpoint, parts)
    if dry_run:
        if seconds is not None:
            estimate = describe_estimate(state, parts, seconds)
            if processes.first:
                print(estimate, flush=True)
        return
    barrier()  # every process has looked at the folder before the first one writes to it
    folder.start(dump_config(config), processes, step=state.step, evaluated=state.evaluated)
    sinks = open_sinks(config, config.output, step=state.step) if processes.first else []
    with folder.checkpoints, folder.logging_to(sinks), parts.interrupts:
        evaluation = fit(state, parts)
    result = describe_result(
        evaluation,
        parts.cost,
        config,
        parts.task,
        steps=state.step,
        train_flops=state.train_flops,
        units_per_second=state.units_per_second,
        utilisation=model_flops_utilisation(state.flops_per_second, config, processes),
    )
    model, assembly, entry = evaluated_model(state, parts), assembly_of(config), parts.identity["data"]
    maps = maps_of(evaluation.stats, model, parts.task, assembly, entry, parts.probe)  # on all, if forwards are
    if processes.first:
        announce(Outcome(result, headline(result, evaluation.scores)), config.output)
        save_class_accuracy(evaluation.scores, assembly, entry, config.output)
        save_routing(evaluation.stats, maps, model, assembly, entry, config.output)


def load_state(state: TrainState, checkpoint: dict[str, Any], parts: Parts) -> None:
    """`TrainState.load`. Raises `ConfigError` for a checkpoint that is whole and does not fit the run."""
    try:
        state.load(checkpoint, parts.layout)
    except Exception as error:  # torch's loaders meet whatever somebody put there
        told = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"cannot go on with the run in {parts.folder.path}: {told[:300]}") from error


def build(
    config: RunConfig, processes: Processes, folder: RunFolder, start: Start | None = None
) -> tuple[TrainState, Parts]:
    """Everything a run is made of. Raises `ValueError` for whatever cannot work, before any training.

    start: the checkpoint whose weights the model begins with.
    """
    return build_on(assembly_of(config).open_data(processes), config, processes, folder, start)


def build_on(
    data: Data, config: RunConfig, processes: Processes, folder: RunFolder, start: Start | None = None
) -> tuple[TrainState, Parts]:
    """`build` for data that are open."""
    check_sinks(config)
    assembly = assembly_of(config)
    set_float32_products(config.train.precision, processes.device)
    layout = build_layout(config.parallel, processes, assembly.backbone.blocks, compiled=config.train.compile)
    torch.manual_seed(config.seed)
    model = assembly.build_model(data.entry, start).to(processes.device)
    task = assembly.task(data.entry, data.val, processes.device)
    samples = {each.shape[1:]: each for each in (*task.train_samples, task.sample)}  # mostly of one shape
    costs = {shape: measure_cost(model, task, each) for shape, each in samples.items()}
    if config.model.grad_checkpointing:
        assembly.backbone.enable_checkpointing(model)
    ema = build_ema(config, model, layout)
    for each in (model, *([ema.module] if ema is not None else [])):
        layout.place(each)
    optimizer = build_optimizer(model, config.optimizer)
    scaler = loss_scaler(choose_precision(config.train.precision, processes.device), processes.device)
    balance = balance_for(model).to(processes.device)
    state = TrainState(model, optimizer, balance, ema, scaler)
    parts = Parts(
        config=config,
        processes=processes,
        layout=layout,
        task=task,
        train_loader=data.train,
        val_loader=data.val,
        schedule=build_schedule(optimizer, config.schedule, len(data.train) // config.train.accumulate),
        cost=costs[task.sample.shape[1:]],
        train_costs=costs,
        folder=folder,
        identity=assembly.describe_model(data.entry),
    )
    return state, parts


def build_ema(config: RunConfig, model: nn.Module, layout: Layout) -> ModelEmaV3 | None:
    """timm's moving average of the weights of a model that is not placed yet, if the config asks for one.

    timm averages the entries of the state dictionary, and a parameter that has two names there, such as tied
    embeddings, twice; without buffers it averages parameters, each once.
    """
    if config.train.ema_decay is None:
        return None
    tied = len(list(model.parameters())) < len(list(model.named_parameters(remove_duplicate=False)))
    train = config.train
    return ModelEmaV3(
        model,
        decay=train.ema_decay,
        use_warmup=train.ema_warmup,
        exclude_buffers=tied,
        foreach=layout.uniform,
    )
