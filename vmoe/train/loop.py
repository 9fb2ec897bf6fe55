"""The training loop: parts come in, weights and records go out."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from timm.utils import random_seed
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from vmoe.moe import mean_figures, record

from .checkpoint import save_checkpoint
from .evaluate import Evaluation, evaluate
from .loaders import Batch
from .meter import Meter, describe_routing, describe_served, log_training
from .precision import autocast
from .probe import Probe, changed_tokens
from .progress import Progress
from .state import Parts, TrainState


def fit(state: TrainState, parts: Parts) -> Evaluation:
    """Train to the end of the schedule, with evaluations and checkpoints on the way; return the last evaluation.

    Raises `FloatingPointError` when the loss is no longer finite; earlier checkpoints remain.
    """
    network = wrap(state.model, parts)
    evaluation: Evaluation | None = None
    while True:
        if parts.evaluates_at(state.step) and state.evaluated < state.step:
            evaluation = evaluate_and_compare(state, parts)
        if state.step >= parts.last_step:
            return evaluation or evaluate_now(state, parts)
        train_until(parts.next_stop(state.step), state, parts, network)
        save(parts.folder.last, state, parts)  # before the evaluation, which may not live to see its end


def wrap(model: nn.Module, parts: Parts) -> nn.Module:
    """The model as training calls it: compiled where the config asks for it, and wrapped for several processes."""
    network: Any = torch.compile(model) if parts.config.train.compile else model
    if parts.processes.world == 1:
        return network
    on_cuda = parts.processes.device.type == "cuda"
    return DistributedDataParallel(network, device_ids=[parts.processes.device] if on_cuda else None)


def train_until(stop: int, state: TrainState, parts: Parts, network: nn.Module) -> None:
    """Optimizer steps up to number `stop`, see `steps_until`."""
    config, processes, task = parts.config, parts.processes, parts.task
    epoch, done = divmod(state.step, parts.steps_per_epoch)
    epochs = -(-parts.last_step // parts.steps_per_epoch)
    units = config.data.batch_size * task.units_per_sample
    state.model.train()
    meter = Meter(parts, state.model)
    progress = Progress(
        f"epoch {epoch + 1}/{epochs}",
        parts.steps_per_epoch * units,
        task.SHORT,
        show=processes.first,
        done=done * units,
    )
    with progress, closing(steps_until(stop, state, parts, network, meter)) as steps:
        for _ in steps:
            progress.advance(units)
            if state.step % config.train.log_every == 0:
                log_training(state, parts, meter, progress)
    meter.close(state)


def steps_until(
    stop: int, state: TrainState, parts: Parts, network: nn.Module, meter: Meter
) -> Generator[None, None, None]:
    """Take optimizer steps up to number `stop`, which is in the epoch that the next step belongs to, or its end; after
    each there is a pause.
    """
    config = parts.config
    epoch, done = divmod(state.step, parts.steps_per_epoch)
    with closing(parts.train_loader.epoch(epoch, done * config.train.accumulate)) as batches:
        while state.step < stop:
            seed_step(config.seed, state.step, parts.processes.rank)
            train_step(state, parts, network, batches, meter)
            yield


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed what mixup, erasing, dropout and random routing draw from, by step and process alone: a run that goes on
    from any step draws what it would have drawn.
    """
    random_seed(int(np.random.SeedSequence((seed, step, rank)).generate_state(1)[0]))


def train_step(state: TrainState, parts: Parts, network: nn.Module, batches: Iterator[Batch], meter: Meter) -> None:
    """One optimizer step: its micro-batches, whose gradients sum up, and the update."""
    accumulate = parts.config.train.accumulate
    for number in range(1, accumulate + 1):
        with nullcontext() if number == accumulate else no_sync(network):
            micro_step(state, parts, network, meter.read(batches), meter)
    update(state, parts)


def no_sync(network: nn.Module) -> AbstractContextManager[None]:
    """Gradients stay on this process within."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()


def micro_step(state: TrainState, parts: Parts, network: nn.Module, batch: Batch, meter: Meter) -> None:
    """Forward and backward of one micro-batch."""
    device = parts.processes.device
    inputs, targets = (tensor.to(device, non_blocking=True) for tensor in batch)
    with record(state.model) as routings, autocast(device, parts.precision):
        task_loss = parts.task.training_loss(network, inputs, targets)
    balance_loss = state.balance(routings)
    state.scaler.scale((task_loss + balance_loss) / parts.config.train.accumulate).backward()
    meter.add(task_loss, balance_loss, routings, shape=inputs.shape, step=state.step)


def update(state: TrainState, parts: Parts) -> None:
    """Update the weights, then everything that follows the weights: controller, schedule, moving average."""
    clip = parts.config.optimizer.clip_grad
    if clip is not None:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.model.parameters(), clip)
    parts.schedule.step_update(state.step)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad()
    state.balance.step()
    state.step += 1
    if state.ema is not None:
        state.ema.update(state.model, step=state.step)


def evaluate_and_compare(state: TrainState, parts: Parts) -> Evaluation:
    """Evaluate, and write best.pt when it is the best evaluation so far."""
    evaluation = evaluate_now(state, parts)
    is_best = evaluation.scores.rank > state.best
    state.best = max(state.best, evaluation.scores.rank)
    state.evaluated = state.step
    if is_best:
        save(parts.folder.best, state, parts)
    return evaluation


def evaluate_now(state: TrainState, parts: Parts) -> Evaluation:
    """Evaluate the weights that count, and log it."""
    model = evaluated_model(state, parts)
    evaluation = evaluate(model, parts.val_loader, parts.task, parts.processes, parts.precision)
    if parts.probe is not None:
        evaluation = replace(evaluation, changed=compare_with_before(model, state, parts, parts.probe))
    routing = mean_figures(evaluation.routing) if evaluation.routing else None
    epoch = state.step / parts.steps_per_epoch
    entry = {
        "kind": "evaluation",
        "step": state.step,
        "epoch": epoch,
        **evaluation.scores.figures,
        "train_flops": state.train_flops,
        "routing": routing,
        "layers": describe_served(evaluation.stats.layers) if evaluation.stats is not None else {},
        "changed": evaluation.changed,
    }
    parts.folder.log(entry)
    if parts.processes.first:
        text = f"epoch {epoch:.4g}, step {state.step}: {evaluation.scores.text}"
        text += f", loss {evaluation.scores.figures['loss']:.4f}"
        if routing:
            text += f", {describe_routing(routing)}"
        if evaluation.changed:
            text += f", other experts than before {fmean(evaluation.changed.values()):.1%}"
        print(text, flush=True)
    return evaluation


def evaluated_model(state: TrainState, parts: Parts) -> nn.Module:
    """The model with the weights that are evaluated: as they are, or their moving average."""
    use_ema = parts.config.train.evaluate == "ema" and state.ema is not None
    return state.ema.module if use_ema and state.ema is not None else state.model


def compare_with_before(model: nn.Module, state: TrainState, parts: Parts, probe: Probe) -> dict[str, float]:
    """Route the probe; the share of its tokens whose experts are others than in the evaluation before, by layer."""
    decisions = probe.route(model, parts.task, parts.processes.device, parts.precision)
    changed = changed_tokens(state.probed, decisions)
    state.probed = decisions
    return changed


def save(path: Path, state: TrainState, parts: Parts) -> None:
    """Write a checkpoint, if this process writes."""
    if not parts.folder.writes:
        return
    checkpoint = {
        **parts.identity,
        "weights": state.model.state_dict(),
        "ema": state.ema.module.state_dict() if state.ema is not None else None,
        "training": state.state_dict(),
    }
    save_checkpoint(path, checkpoint)
