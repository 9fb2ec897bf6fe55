"""The probe: a fixed sample of what is evaluated, whose routing shows how far decisions still change.

Shapes: S samples, T tokens of all of them, E experts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from vmoe.moe import evaluating, moe_layers, record

from .loaders import Loader
from .precision import autocast
from .task import Task

Decisions = dict[str, Tensor]
"""of each layer, by its name: (T, ⌈E / 8⌉) uint8 on the CPU, a bit for each expert that a token activates"""


@dataclass(frozen=True)
class Probe:
    """inputs (S, …), targets (S, …): as the loader gives them. batch_size: samples of a forward."""

    inputs: Tensor
    targets: Tensor
    batch_size: int

    @classmethod
    def read(cls, loader: Loader, count: int, batch_size: int) -> Probe:
        """So many samples at most, evenly spaced over a loader's data set."""
        batches = list(loader.sample(count).epoch(0))
        return cls(torch.cat([inputs for inputs, _ in batches]), torch.cat([t for _, t in batches]), batch_size)

    @torch.no_grad()
    def route(self, model: nn.Module, task: Task, device: torch.device, precision: torch.dtype) -> Decisions:
        """Which experts each token of the sample activates, in every MoE layer."""
        found: dict[str, list[Tensor]] = {name: [] for name, _ in moe_layers(model)}
        with evaluating(model), record(model) as routings:
            for inputs in self.inputs.split(self.batch_size):
                with autocast(device, precision):
                    task.forward(model, task.prepare(inputs.to(device, non_blocking=True)))
                for name, routing in routings.items():
                    found[name].append(pack(routing.active))
        return {name: torch.cat(parts) for name, parts in found.items()}


def pack(active_TE: Tensor) -> Tensor:
    """(T, E) bool to a bit each, (T, ⌈E / 8⌉) uint8 on the CPU."""
    return torch.from_numpy(np.packbits(active_TE.cpu().numpy(), axis=1))


def changed_tokens(before: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> dict[str, float]:
    """Of each layer, the share of tokens whose set of experts is another one; layers that do not compare are absent."""
    return {
        name: float((decisions != before[name]).any(dim=1).double().mean())
        for name, decisions in now.items()
        if name in before and before[name].shape == decisions.shape and len(decisions)
    }
