"""The training loop: parts come in, weights and records go out."""

from __future__ import annotations

from contextlib import AbstractContextManager, closing, nullcontext

from timm.utils import random_seed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vmoe.moe import mean_figures, record

from .checkpoint import save_checkpoint
from .distributed import Processes
from .evaluate import Evaluation, evaluate
from .meter import Meter, log_training
from .precision import autocast
from .progress import Progress
from .state import Parts, TrainState


def fit(state: TrainState, parts: Parts) -> Evaluation:
    """Train to the end of the schedule, with evaluations and checkpoints on the way; return the last evaluation.

    Raises `FloatingPointError` when the loss is no longer finite; the checkpoints of earlier epochs remain.
    """
    network = distribute(state.model, parts.processes)
    evaluation: Evaluation | None = None
    while not finished(state, parts):
        train_epoch(state, parts, network)
        state.epoch += 1
        if finished(state, parts) or state.epoch % parts.config.train.eval_every == 0:
            evaluation = evaluate_epoch(state, parts)
        is_best = evaluation is not None and evaluation.top1 > state.best_top1
        if is_best and evaluation is not None:
            state.best_top1 = evaluation.top1
        save(state, parts, is_best=is_best)
    return evaluation or evaluate_epoch(state, parts)


def finished(state: TrainState, parts: Parts) -> bool:
    """Whether the schedule, or the trial that stops it early, has come to its end."""
    limit = parts.config.schedule.max_steps
    return state.epoch >= parts.config.schedule.epochs or (limit is not None and state.step >= limit)


def distribute(model: nn.Module, processes: Processes) -> nn.Module:
    """The model as training calls it: wrapped for several processes, itself for one."""
    if processes.world == 1:
        return model
    on_cuda = processes.device.type == "cuda"
    return DistributedDataParallel(model, device_ids=[processes.device] if on_cuda else None)


def train_epoch(state: TrainState, parts: Parts, network: nn.Module) -> None:
    """One epoch of optimizer steps, or less of it where `schedule.max_steps` ends a trial."""
    config, processes = parts.config, parts.processes
    # Mixup, erasing, dropout and random routing draw from generators that depend on epoch and process alone.
    random_seed((config.seed * config.schedule.epochs + state.epoch) * processes.world, processes.rank)
    state.model.train()
    meter = Meter(parts)
    micro_batches = parts.steps_per_epoch * config.train.accumulate
    progress = Progress(
        f"epoch {state.epoch + 1}/{config.schedule.epochs}",
        parts.steps_per_epoch * config.data.batch_size,
        show=processes.first,
    )
    with progress, closing(parts.train_loader.epoch(state.epoch)) as batches:
        for index, (images, labels) in zip(range(micro_batches), batches, strict=False):
            is_last = (index + 1) % config.train.accumulate == 0
            micro_step(state, parts, network, images, labels, meter, synchronise=is_last)
            if not is_last:
                continue
            optimizer_step(state, parts)
            progress.advance(config.data.batch_size)
            if state.step % config.train.log_every == 0:
                log_training(state, parts, meter, progress)
            if finished(state, parts):
                break
    meter.close(state)


def micro_step(
    state: TrainState,
    parts: Parts,
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    meter: Meter,
    *,
    synchronise: bool,
) -> None:
    """Forward and backward of one micro-batch. Gradients sum up over micro-batches."""
    device = parts.processes.device
    images = parts.prepare(images.to(device, non_blocking=True))
    images, targets = parts.augment(images, labels.to(device, non_blocking=True))
    with no_sync(network) if not synchronise else nullcontext():
        with record(state.model) as routings, autocast(device, parts.precision):
            logits = network(images)
        task_loss = parts.augment.criterion(logits.float(), targets)
        balance_loss = state.balance(routings)
        ((task_loss + balance_loss) / parts.config.train.accumulate).backward()
    meter.add(task_loss, balance_loss, routings, len(labels))


def no_sync(network: nn.Module) -> AbstractContextManager[None]:
    """Gradients stay on this process within."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()


def optimizer_step(state: TrainState, parts: Parts) -> None:
    """Update the weights, then everything that follows the weights: controller, schedule, moving average."""
    clip = parts.config.optimizer.clip_grad
    if clip is not None:
        nn.utils.clip_grad_norm_(state.model.parameters(), clip)
    parts.schedule.step_update(state.step)
    state.optimizer.step()
    state.optimizer.zero_grad()
    state.balance.step()
    state.step += 1
    if state.ema is not None:
        state.ema.update(state.model, step=state.step)


def evaluate_epoch(state: TrainState, parts: Parts) -> Evaluation:
    """Evaluate the weights that count, and log it."""
    use_ema = parts.config.train.evaluate == "ema" and state.ema is not None
    model = state.ema.module if use_ema and state.ema is not None else state.model
    evaluation = evaluate(model, parts.val_loader, parts.prepare, parts.processes, parts.precision)
    routing = mean_figures(evaluation.routing) if evaluation.routing else None
    entry = {
        "kind": "evaluation",
        "step": state.step,
        "epoch": state.epoch,
        "top1": evaluation.top1,
        "top5": evaluation.top5,
        "loss": evaluation.loss,
        "train_flops": state.train_flops,
        "routing": routing,
    }
    parts.folder.log(entry)
    if parts.processes.first:
        text = f"epoch {state.epoch}: top-1 {evaluation.top1:.2f} %, loss {evaluation.loss:.4f}"
        if routing:
            text += f", routing entropy {routing['entropy']:.3f}, density {routing['density']:.3f}"
        print(text, flush=True)
    return evaluation


def save(state: TrainState, parts: Parts, *, is_best: bool) -> None:
    """Write last.pt, and best.pt when this is the best evaluation so far."""
    if not parts.folder.writes:
        return
    checkpoint = {
        **parts.identity,
        "weights": state.model.state_dict(),
        "ema": state.ema.module.state_dict() if state.ema is not None else None,
        "training": state.state_dict(),
    }
    save_checkpoint(parts.folder.last, checkpoint)
    if is_best:
        save_checkpoint(parts.folder.best, checkpoint)
