"""Optimizer and schedule of a run: timm's, called with the config's values."""

from __future__ import annotations

import difflib

import torch
from timm.optim import create_optimizer_v2, get_optimizer_info, list_optimizers
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch import nn

from vmoe.config import OptimizerConfig, ScheduleConfig
from vmoe.moe.experts import Experts


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """timm's optimizer, with its parameter groups: no decay for biases, norms and what the model exempts; experts'
    weights have groups of their own where they decay otherwise.

    Raises `ValueError`: unknown kind, or Muon, which would take a stack of experts for one convolution.
    """
    allowed = [kind for kind in list_optimizers() if "muon" not in kind]
    if config.kind not in allowed:
        close = difflib.get_close_matches(config.kind, allowed, n=3)
        raise ValueError(
            f"optimizer.kind is {config.kind!r}; allowed: what timm.optim.list_optimizers() names, such as"
            f" {', '.join(close or ['adamw', 'lamb', 'sgd'])}, but not muon, which takes stacked experts for one matrix"
        )
    info = get_optimizer_info(config.kind)
    optimizer = create_optimizer_v2(
        model,
        opt=config.kind,
        lr=config.lr,
        weight_decay=config.weight_decay,
        layer_decay=config.layer_decay if config.layer_decay < 1 else None,
        **({"betas": config.betas} if info.has_betas else {}),
        **({"eps": config.eps} if info.has_eps else {}),
    )
    if config.expert_weight_decay is not None:
        set_expert_decay(optimizer, model, config.expert_weight_decay)
    return optimizer


def set_expert_decay(optimizer: torch.optim.Optimizer, model: nn.Module, weight_decay: float) -> None:
    """Move the experts' weights out of the optimizer's groups into such groups with this decay."""
    stacks = [module for module in model.modules() if isinstance(module, Experts)]
    weights = {layer.weight for stack in stacks for layer in stack.all_layers()}
    for group in list(optimizer.param_groups):
        chosen = [parameter for parameter in group["params"] if parameter in weights]
        if chosen:
            group["params"] = [parameter for parameter in group["params"] if parameter not in weights]
            optimizer.add_param_group({**group, "params": chosen, "weight_decay": weight_decay})
    optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]


def build_schedule(optimizer: torch.optim.Optimizer, config: ScheduleConfig, steps_per_epoch: int) -> Scheduler:
    """Cosine with linear warm-up, in optimizer steps (`step_update`)."""
    whole: float = config.epochs
    warmup: float = config.warmup_epochs
    if config.steps is not None and config.warmup_steps is not None:
        whole, warmup, steps_per_epoch = config.steps, config.warmup_steps, 1
    schedule, _ = create_scheduler_v2(
        optimizer,
        sched="cosine",
        num_epochs=whole - warmup if config.warmup_prefix else whole,
        warmup_epochs=warmup,
        warmup_prefix=config.warmup_prefix,
        warmup_lr=config.warmup_lr,
        min_lr=config.min_lr,
        step_on_epochs=False,
        updates_per_epoch=steps_per_epoch,
    )
    return schedule
