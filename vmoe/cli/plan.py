"""What a run will take, in a few lines: parameters, FLOPs, memory, steps."""

from __future__ import annotations

from vmoe.config import RunConfig
from vmoe.train.cost import Cost
from vmoe.train.state import Parts, TrainState

from .tasks import assembly_of

BYTES_PER_WEIGHT = 16  # float32 weight, gradient, and AdamW's two moments


def describe_plan(state: TrainState, parts: Parts) -> str:
    """Parameters, active parameters and FLOPs at the density that the gate aims at, memory, and steps."""
    config, cost, experts, task = parts.config, parts.cost, parts.config.moe.experts, parts.task
    density = intended_density(config, cost)
    batch = assembly_of(config).micro_batch_size(parts.processes)
    weights = cost.params * (BYTES_PER_WEIGHT + (4 if state.ema is not None else 0))
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
        "processes": f"{parts.processes.world} on {parts.processes.device.type}, {precision}",
    }
    return "\n".join(f"{name + ':':<16}{text}" for name, text in lines.items())


def intended_density(config: RunConfig, cost: Cost) -> dict[str, float]:
    """The share of active pairs that the gate aims at, for each MoE layer."""
    if not cost.layers:
        return {}
    gate, experts = config.moe.gate, config.moe.num_experts
    return {
        name: gate.active_experts(experts, layer.tokens_per_sample) / experts for name, layer in cost.layers.items()
    }
