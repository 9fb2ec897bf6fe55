"""What a run will take, in a few lines: parameters, FLOPs, memory, steps."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill, indent

from vmoe.config import RunConfig
from vmoe.train.cost import Cost
from vmoe.train.parallel.layout import parameters_here
from vmoe.train.state import Parts, TrainState

from .tasks import assembly_of

MARGIN, WIDTH = 16, 120  # columns: of the names, and of a line
BYTES_PER_WEIGHT = 16  # float32 weight, gradient, and AdamW's two moments


def describe_plan(state: TrainState, parts: Parts) -> str:
    """Parameters, active parameters and FLOPs at the density that the gate aims at, memory, and steps."""
    config, cost, experts, task = parts.config, parts.cost, parts.config.moe.experts, parts.task
    density = intended_density(config, cost)
    batch = assembly_of(config).micro_batch_size(parts.processes)
    weights = parameters_here(state.model) * (BYTES_PER_WEIGHT + (4 if state.ema is not None else 0))
    activations = cost.activation_bytes * batch * parts.precision.itemsize // 4
    layers = ", ".join(cost.layers) or "none"
    precision = str(parts.precision).removeprefix("torch.")
    lines = {
        "model": f"{config.model.name}, gate {config.moe.gate.kind}, experts {experts.kind if experts else 'none'}",
        "MoE layers": layers,
        "parameters": f"{cost.params:,}, of them active {round(cost.active_params(density)):,}",
        f"FLOPs/{task.UNIT}": f"{cost.flops_per_unit(density) / 1e6:,.2f} million forward (2 a multiply-add)",
        "memory": f"about {weights / 2**20:,.0f} MiB weights, gradients, optimizer"
        f" + {activations / 2**20:,.0f} MiB activations for {batch} {task.SAMPLE}s a process",
        "data": f"{parts.train_loader.units:,} {task.UNIT}s to train, {parts.val_loader.units:,} to evaluate,"
        f" {task.num_labels:,} {task.LABEL}",
        "steps": f"{parts.last_step:,} of {config.data.batch_size} {task.SAMPLE}s, {parts.steps_per_epoch:,} an epoch",
        "training FLOPs": f"{train_flops_between(0, parts.last_step, parts):.3g}, forward and backward of all steps",
        "processes": f"{parts.processes.world} on {parts.processes.device.type}, {precision}, {parts.layout}",
    }
    return lines_of(lines)


def lines_of(texts: Mapping[str, str]) -> str:
    """Texts below each other, with their names before them; long ones take several lines."""
    filled = (fill(text, WIDTH - MARGIN, break_on_hyphens=False, break_long_words=False) for text in texts.values())
    return "\n".join(
        indent(text, " " * MARGIN).replace(" " * MARGIN, f"{name + ':':<{MARGIN}}", 1)
        for name, text in zip(texts, filled, strict=True)
    )


def train_flops_between(first: int, last: int, parts: Parts) -> float:
    """FLOPs of training from one step to another at the density that the gate aims at."""
    config, task, flops = parts.config, parts.task, 0.0
    while first < last:
        epoch = first // parts.steps_per_epoch
        end = min(last, (epoch + 1) * parts.steps_per_epoch)
        cost = parts.train_costs[task.train_shape(epoch)]
        flops += (end - first) * config.data.batch_size * cost.train_flops(intended_density(config, cost))
        first = end
    return flops


def intended_density(config: RunConfig, cost: Cost) -> dict[str, float]:
    """The share of active pairs that the gate aims at, for each MoE layer."""
    if not cost.layers:
        return {}
    gate, experts = config.moe.gate, config.moe.num_experts
    return {
        name: gate.active_experts(experts, layer.tokens_per_sample) / experts for name, layer in cost.layers.items()
    }
