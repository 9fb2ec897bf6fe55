"""Counts of routing: int64 tensors that add up over batches and processes.

Sums of real numbers (gate weights, token entropies) are kept in fixed point, so that the same decisions give the same
counts however they are split. Nothing here waits for the device but `figures`.

Shapes: T tokens, E experts, B sequences of P positions, L labels.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .figures import (
    LoadFigures,
    RoutingFigures,
    entropy,
    entropy_scale,
    load_figures,
    mutual_information,
    shares,
)
from .routing import Routing

FIXED_POINT = 2.0**24  # integer units of gate mass and of entropy


class LoadCounts:
    """What a layer's experts served, on the routing's device: cheap enough for every training step.

    tokens (): that passed the layer. pairs (E,): active ones, of each expert.
    """

    def __init__(self, num_experts: int, device: torch.device):
        self.tokens = torch.zeros((), dtype=torch.int64, device=device)
        self.pairs = torch.zeros(num_experts, dtype=torch.int64, device=device)

    def tensors(self) -> dict[str, Tensor]:
        """Every count, by its name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    @torch.no_grad()
    def add(self, routing: Routing) -> None:
        self.tokens += routing.num_tokens
        self.pairs += routing.active.sum(0)

    def clear(self) -> None:
        for tensor in self.tensors().values():
            tensor.zero_()

    def figures(self) -> LoadFigures:
        return LoadFigures(**load_figures(self.pairs, int(self.tokens)))


class LayerCounts(LoadCounts):
    """Everything that is counted of one MoE layer.

    rows (): that experts computed. mass (E,): summed weights, and token_entropy (): summed entropies of tokens' own
    weights in nats, both in units of 2⁻²⁴. tokens_by_experts (E + 1,): tokens with 0, 1, …, E active experts. both
    (E, E): tokens that activate both. pairs_by_label (L, E): pairs of each label. pairs_by_position (P, E) and
    tokens_by_position (P,): at each position of a sequence, P being 0 before the first forward.
    positions: the shape of a sequence, such as (N,), whose product is P.
    """

    def __init__(self, num_experts: int, num_labels: int, device: torch.device):
        super().__init__(num_experts, device)

        def zeros(*size: int) -> Tensor:
            return torch.zeros(size, dtype=torch.int64, device=device)

        self.rows = zeros()
        self.mass = zeros(num_experts)
        self.token_entropy = zeros()
        self.tokens_by_experts = zeros(num_experts + 1)
        self.both = zeros(num_experts, num_experts)
        self.pairs_by_label = zeros(num_labels, num_experts)
        self.pairs_by_position = zeros(0, num_experts)
        self.tokens_by_position = zeros(0)
        self.positions: torch.Size | None = None

    @torch.no_grad()
    def add(self, routing: Routing, labels_B: Tensor | None = None) -> None:
        """Count a layer's decision. labels_B: of each of B equal groups of consecutive tokens."""
        super().add(routing)
        active_TE = routing.active.long()
        weights_TE = routing.weights.double()
        experts_T = active_TE.sum(1)
        probability_TE = weights_TE / weights_TE.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
        entropy_T = torch.special.entr(probability_TE).sum(1)
        self.rows += routing.count_rows()
        self.mass += (weights_TE * FIXED_POINT).round().long().sum(0)
        self.token_entropy += (entropy_T * FIXED_POINT).round().long().sum()
        numbers = torch.arange(routing.num_experts + 1, device=experts_T.device)
        self.tokens_by_experts += (experts_T[:, None] == numbers).sum(0)
        self.both += (active_TE.double().T @ active_TE.double()).long()  # exact below 2**53 tokens
        if labels_B is not None:
            pairs_BE = active_TE.view(len(labels_B), tokens_each(routing, labels_B), routing.num_experts).sum(1)
            self.pairs_by_label.index_add_(0, labels_B, pairs_BE)

    @torch.no_grad()
    def add_positions(self, routing: Routing, counted_T: Tensor | None = None) -> None:
        """Count a layer's decision position by position. counted_T: (T,) bool, the tokens to count.

        Raises `ValueError` for sequences of another shape than before, unless they are only shorter or longer.
        """
        shape = routing.shape[1:]
        before = self.positions
        if before is not None and before != shape and (len(before) > 1 or len(shape) > 1):
            raise ValueError(f"sequences have shape {tuple(shape)} after {tuple(before)}; allowed: one shape")
        length = shape.numel()
        self.grow_positions(length)
        if before is None or length > before.numel():
            self.positions = shape
        active_BPE = routing.active.view(-1, length, routing.num_experts)
        counted_BP = torch.ones_like(active_BPE[..., 0]) if counted_T is None else counted_T.view(-1, length)
        self.pairs_by_position[:length] += (active_BPE & counted_BP[..., None]).sum(0)
        self.tokens_by_position[:length] += counted_BP.sum(0)

    def grow_positions(self, length: int) -> None:
        """Make room for at least so many positions."""
        if (missing := length - len(self.tokens_by_position)) > 0:
            self.pairs_by_position = functional.pad(self.pairs_by_position, (0, 0, 0, missing))
            self.tokens_by_position = functional.pad(self.tokens_by_position, (0, missing))

    def label_load(self) -> Tensor:
        """(L, E) float64: each expert's share of a label's pairs; 0 where a label has none."""
        return self.pairs_by_label.double() / self.pairs_by_label.sum(1, keepdim=True).clamp(min=1)

    def position_load(self) -> Tensor:
        """(*positions, E) float64: share of the tokens at a position that each expert serves."""
        load_PE = self.pairs_by_position.double() / self.tokens_by_position.clamp(min=1)[:, None]
        return load_PE.unflatten(0, self.positions) if self.positions else load_PE

    def figures(self) -> RoutingFigures:
        tokens, num_experts = int(self.tokens), len(self.pairs)
        mass = float(self.mass.sum()) or 1.0
        labelled = bool(self.pairs_by_label.any())
        information = mutual_information(self.pairs_by_label)
        expert_entropy = entropy(shares(self.pairs_by_label.sum(0)))
        further: dict[str, Any] = {
            "token_entropy": float(self.token_entropy) / FIXED_POINT / max(tokens, 1) / entropy_scale(num_experts),
            "compute_density": int(self.rows) / max(tokens * num_experts, 1),
            "gate_mass": tuple((self.mass.double() / mass).tolist()),
            "experts_per_token": tuple(self.tokens_by_experts.tolist()),
            "co_activation": tuple(map(tuple, (self.both.double() / max(tokens, 1)).tolist())),
            "label_information": information / math.log(2) if labelled else None,
            "label_information_share": information / (expert_entropy or 1.0) if labelled else None,
        }
        return RoutingFigures(**load_figures(self.pairs, tokens), **further)


def tokens_each(routing: Routing, labels_B: Tensor) -> int:
    """Tokens in each of as many equal groups as there are labels. Raises `ValueError` where there are no such."""
    tokens, groups = routing.num_tokens, len(labels_B)
    if groups == 0 and tokens == 0:
        return 0
    if groups == 0 or tokens % groups:
        raise ValueError(f"there are {groups} labels for {tokens} tokens; allowed: one for each group of equally many")
    return tokens // groups
