"""What a run will take, in a few lines: parameters, FLOPs, memory, steps."""

from __future__ import annotations

from vmoe.config import RunConfig
from vmoe.train.cost import Cost
from vmoe.train.state import Parts, TrainState

from .assemble import micro_batch_size

BYTES_PER_WEIGHT = 16  # float32 weight, gradient, and AdamW's two moments


def describe_plan(state: TrainState, parts: Parts) -> str:
    """Parameters, active parameters and FLOPs at the density that the gate aims at, memory, and steps."""
    config, cost, experts = parts.config, parts.cost, parts.config.moe.experts
    density = intended_density(config, cost)
    steps = parts.steps_per_epoch * config.schedule.epochs
    if config.schedule.max_steps is not None:
        steps = min(steps, config.schedule.max_steps)
    batch = micro_batch_size(config, parts.processes)
    weights = cost.params * (BYTES_PER_WEIGHT + (4 if state.ema is not None else 0))
    activations = cost.activation_bytes * batch * parts.precision.itemsize // 4
    layers = ", ".join(cost.layers) or "none"
    precision = str(parts.precision).removeprefix("torch.")
    lines = {
        "model": f"{config.model.name}, gate {config.moe.gate.kind}, experts {experts.kind if experts else 'none'}",
        "MoE layers": layers,
        "parameters": f"{cost.params:,}, of them active {round(cost.active_params(density)):,}",
        "FLOPs an image": f"{cost.flops_per_image(density) / 1e6:,.2f} million forward (2 a multiply-add)",
        "memory": f"about {weights / 2**20:,.0f} MiB weights, gradients, optimizer"
        f" + {activations / 2**20:,.0f} MiB activations for {batch} images a process",
        "data": f"{parts.train_loader.samples:,} images to train, {parts.val_loader.samples:,} to evaluate,"
        f" {len(parts.train_loader.classes)} classes",
        "steps": f"{steps:,} of {config.data.batch_size} images, {parts.steps_per_epoch:,} an epoch",
        "processes": f"{parts.processes.world} on {parts.processes.device.type}, {precision}",
    }
    return "\n".join(f"{name + ':':<16}{text}" for name, text in lines.items())


def intended_density(config: RunConfig, cost: Cost) -> dict[str, float]:
    """The share of active pairs that the gate aims at, for each MoE layer."""
    if not cost.layers:
        return {}
    gate, experts = config.moe.gate, config.moe.num_experts
    return {name: gate.active_experts(experts, layer.tokens_per_image) / experts for name, layer in cost.layers.items()}
