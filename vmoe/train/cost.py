"""What a model costs: parameters, FLOPs and memory, measured on the model itself.

FLOPs count 2 a multiply-add, of matrix products, convolutions and attention, by torch's own counter. A MoE layer's
FLOPs depend on its routing, so the measured total is split into a fixed part and a part for each row that an expert
computes, an active pair or a slot; what a run spends then follows from the rows it counted. Recomputation under
activation checkpointing is not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from vmoe.moe import evaluating, moe_layers, record

from .task import Task

BACKWARD = 2  # a product's backward is two products of its size: by the input and by the weight


@dataclass(frozen=True)
class LayerCost:
    """One MoE layer: FLOPs and parameters of one active pair, its experts, and the tokens a sample brings it."""

    flops_per_pair: int
    params_per_pair: int
    num_experts: int
    tokens_per_sample: int


@dataclass(frozen=True)
class Cost:
    """What one sample, such as an image or a sequence of tokens, costs. units: of the task, in a sample.

    params: all of them. fixed_flops, fixed_train_flops: forward, and forward with backward, without any active pair.
    activation_bytes: saved for the backward pass at the routing of the start.
    """

    units: int
    params: int
    fixed_flops: int
    fixed_train_flops: int
    activation_bytes: int
    layers: Mapping[str, LayerCost]

    def flops_per_unit(self, density: Mapping[str, float]) -> float:
        """Forward FLOPs; density: of each MoE layer, rows that its experts compute over all pairs."""
        return (self.fixed_flops + self._flops_on_rows(density)) / self.units

    def active_params(self, density: Mapping[str, float]) -> float:
        """Parameters that a token uses in the mean at the given density of each MoE layer."""
        return self.params - sum(
            (1 - density[name]) * layer.num_experts * layer.params_per_pair for name, layer in self.layers.items()
        )

    def train_flops(self, density: Mapping[str, float]) -> float:
        """Of a sample, forward and backward, at that density of each MoE layer."""
        return self.fixed_train_flops + (1 + BACKWARD) * self._flops_on_rows(density)

    def _flops_on_rows(self, density: Mapping[str, float]) -> float:
        return sum(
            density[name] * layer.tokens_per_sample * layer.num_experts * layer.flops_per_pair
            for name, layer in self.layers.items()
        )

    def train_flops_on_rows(self, rows: Mapping[str, int]) -> int:
        """FLOPs spent by training steps on so many rows in each MoE layer; `fixed_train_flops` a sample come on top."""
        return (1 + BACKWARD) * sum(rows[name] * layer.flops_per_pair for name, layer in self.layers.items())


def measure_cost(model: nn.Module, task: Task, sample: Tensor | None = None) -> Cost:
    """Measure one sample's forward and backward on the model's device; no gradient or mode is left changed.

    sample: default, the task's.
    """
    saved = SavedBytes(model)
    with (
        evaluating(model),
        record(model) as routings,
        FlopCounterMode(display=False) as forward,
        saved_tensors_hooks(saved.pack, _same),
    ):
        loss = task.forward(model, task.sample if sample is None else sample).sum()
    with FlopCounterMode(display=False) as backward:
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        torch.autograd.grad(loss, trained, allow_unused=True)
    layers = {
        name: LayerCost(
            flops_per_pair=layer.flops_per_pair,
            params_per_pair=layer.params_per_pair,
            num_experts=layer.experts.num_experts,
            tokens_per_sample=routings[name].num_tokens,
        )
        for name, layer in moe_layers(model)
    }
    on_rows = sum(int(routings[name].count_rows()) * layer.flops_per_pair for name, layer in layers.items())
    total = forward.get_total_flops()
    return Cost(
        units=task.units_per_sample,
        params=sum(parameter.numel() for parameter in model.parameters()),
        fixed_flops=total - on_rows,
        fixed_train_flops=total + backward.get_total_flops() - (1 + BACKWARD) * on_rows,
        activation_bytes=saved.bytes,
        layers=layers,
    )


class SavedBytes:
    """Counts the bytes that autograd saves, each storage once, parameters aside."""

    def __init__(self, model: nn.Module):
        self.seen = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        self.kept: list[Tensor] = []  # a freed storage's address could come again
        self.bytes = 0

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.seen:
            self.seen.add(storage.data_ptr())
            self.kept.append(tensor)
            self.bytes += storage.nbytes()
        return tensor


def _same(tensor: Tensor) -> Tensor:
    return tensor
