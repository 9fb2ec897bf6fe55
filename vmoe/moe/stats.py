"""Routing statistics: counts that add up over batches, processes and runs, and figures derived at the end.

Every count is an integer, and sums of real numbers (gate weights, token entropies) are kept in fixed point, so that
the same decisions give the same figures however they are split. Nothing synchronises with the device before
`figures`, but for `counted`, once a forward.

Shapes: T tokens, E experts, B sequences, or T where each token has a label of its own, L labels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .collective import sum_over_processes
from .layer import moe_layers
from .routing import Routing

FIXED_POINT = 2.0**24  # integer units of gate mass and of entropy
NEARLY_DEAD = 0.01  # of an expert's fair share of the pairs


@dataclass(frozen=True)
class RoutingFigures:
    """What one layer's counts say. Entropies are normalised by ln E: 1 is even, 0 where E is 1 or nothing is active.

    entropy: of the load; entropy_min: the least it can be at this density (ln k / ln E with k experts a token).
    token_entropy: mean over tokens of the entropy of the token's own weights.
    load_cv: standard deviation of the load over its mean; load_max: the largest share; load_max_ratio and
    load_min_ratio: largest and smallest share over the mean share.
    dead: share of experts without a pair; nearly_dead: with less than 1 % of a fair share.
    density: active pairs over all pairs. compute_density: rows that experts compute over all pairs, which is the same
    but for Soft MoE, where every pair is active and experts compute slots.
    load: share of the pairs, per expert. gate_mass: share of the summed weights, per expert.
    experts_per_token: number of tokens with 0, 1, …, E active experts.
    co_activation: (E, E), share of the tokens that activate both i and j.
    label_information: mutual information between label and expert over the pairs, in bits, and
    label_information_share: the same over the entropy of the expert; None where no labels were given.
    """

    entropy: float
    entropy_min: float
    token_entropy: float
    load_cv: float
    load_max: float
    load_max_ratio: float
    load_min_ratio: float
    dead: float
    nearly_dead: float
    density: float
    compute_density: float
    load: tuple[float, ...]
    gate_mass: tuple[float, ...]
    experts_per_token: tuple[int, ...]
    co_activation: tuple[tuple[float, ...], ...]
    label_information: float | None
    label_information_share: float | None

    SCALARS = (
        *("entropy", "entropy_min", "token_entropy", "load_cv", "load_max", "load_max_ratio", "load_min_ratio"),
        *("dead", "nearly_dead", "density", "compute_density", "label_information", "label_information_share"),
    )  # fmt: skip


class LayerCounts:
    """The counts of one MoE layer: int64 tensors on the routing's device."""

    def __init__(self, num_experts: int, num_labels: int, device: torch.device):
        def zeros(*size: int) -> Tensor:
            return torch.zeros(size, dtype=torch.int64, device=device)

        self.tokens = zeros()
        self.rows = zeros()
        self.pairs_E = zeros(num_experts)
        self.mass_E = zeros(num_experts)  # fixed point
        self.token_entropy = zeros()  # fixed point, nats
        self.tokens_by_experts = zeros(num_experts + 1)
        self.both_EE = zeros(num_experts, num_experts)
        self.pairs_LE = zeros(num_labels, num_experts)

    def tensors(self) -> list[Tensor]:
        return list(vars(self).values())

    @torch.no_grad()
    def add(self, routing: Routing, labels_B: Tensor | None) -> None:
        active_TE = routing.active.long()
        weights_TE = routing.weights.double()
        experts_T = active_TE.sum(1)
        probability_TE = weights_TE / weights_TE.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
        entropy_T = torch.special.entr(probability_TE).sum(1)
        self.tokens += routing.num_tokens
        self.rows += routing.count_rows()
        self.pairs_E += active_TE.sum(0)
        self.mass_E += (weights_TE * FIXED_POINT).round().long().sum(0)
        self.token_entropy += (entropy_T * FIXED_POINT).round().long().sum()
        numbers = torch.arange(routing.num_experts + 1, device=experts_T.device)
        self.tokens_by_experts += (experts_T[:, None] == numbers).sum(0)
        self.both_EE += (active_TE.double().T @ active_TE.double()).long()  # exact below 2**53 tokens
        if labels_B is not None:
            pairs_BE = active_TE.view(len(labels_B), tokens_each(routing, labels_B), routing.num_experts).sum(1)
            self.pairs_LE.index_add_(0, labels_B, pairs_BE)

    def figures(self) -> RoutingFigures:
        num_experts = len(self.pairs_E)
        tokens, pairs = int(self.tokens), int(self.pairs_E.sum())
        scale = math.log(num_experts) if num_experts > 1 else math.inf
        load_E = shares(self.pairs_E)
        mass = float(self.mass_E.sum()) or 1.0
        mean = 1 / num_experts if pairs else 1.0
        information, expert_entropy = mutual_information(self.pairs_LE), entropy(shares(self.pairs_LE.sum(0)))
        labelled = bool(self.pairs_LE.any())
        return RoutingFigures(
            entropy=entropy(load_E) / scale,
            entropy_min=least_entropy(pairs / max(tokens, 1)) / scale,
            token_entropy=float(self.token_entropy) / FIXED_POINT / max(tokens, 1) / scale,
            load_cv=float(load_E.std(correction=0)) / mean,
            load_max=float(load_E.max()),
            load_max_ratio=float(load_E.max()) / mean,
            load_min_ratio=float(load_E.min()) / mean,
            dead=float((self.pairs_E == 0).double().mean()),
            nearly_dead=float((self.pairs_E < NEARLY_DEAD * pairs / num_experts).double().mean()) if pairs else 1.0,
            density=pairs / max(tokens * num_experts, 1),
            compute_density=int(self.rows) / max(tokens * num_experts, 1),
            load=tuple(load_E.tolist()),
            gate_mass=tuple((self.mass_E.double() / mass).tolist()),
            experts_per_token=tuple(self.tokens_by_experts.tolist()),
            co_activation=tuple(map(tuple, (self.both_EE.double() / max(tokens, 1)).tolist())),
            label_information=information / math.log(2) if labelled else None,
            label_information_share=information / (expert_entropy or 1.0) if labelled else None,
        )


class RoutingStats:
    """Statistics over any number of forwards of one model, on its device.

    num_labels: with it, `update` takes labels, and the figures tell how far experts tell them apart.
    """

    def __init__(self, model: nn.Module, num_labels: int = 0):
        self.layers = {
            name: LayerCounts(layer.experts.num_experts, num_labels, next(layer.parameters()).device)
            for name, layer in moe_layers(model)
        }

    def update(
        self, routings: Mapping[str, Routing], labels: Tensor | None = None, *, counted: Tensor | None = None
    ) -> None:
        """Count one forward.

        labels: (B,) int64, each of one of B equal groups of consecutive tokens: of a sequence, such as its class, or of
        one token, such as its id, where B is T. counted: (T,) bool, the tokens to count; labels are then (T,).

        Raises `ValueError`: tokens that are no equal groups for so many labels; or, with `counted`, another number of
        tokens or of labels, or a layer whose experts compute slots.
        """
        if counted is not None:
            lengths = {name: routing.num_tokens for name, routing in routings.items()}
            lengths |= {} if labels is None else {"labels": len(labels)}
            if wrong := {name: length for name, length in lengths.items() if length != len(counted)}:
                raise ValueError(f"counted is of {len(counted)} tokens, and there are {wrong}; allowed: as many")
            chosen = counted.nonzero().squeeze(1)
            routings = {name: routing.select(chosen) for name, routing in routings.items()}
            labels = None if labels is None else labels[chosen]
        for name, routing in routings.items():
            self.layers[name].add(routing, labels)

    def all_reduce(self) -> None:
        """Sum over all processes, each of which calls this once, also one that has counted nothing."""
        for counts in self.layers.values():
            for tensor in counts.tensors():
                sum_over_processes(tensor)

    def figures(self) -> dict[str, RoutingFigures]:
        """Figures of each layer, by its name."""
        return {name: counts.figures() for name, counts in self.layers.items()}


def mean_figures(layers: Mapping[str, RoutingFigures]) -> dict[str, float | None]:
    """The mean over layers of each scalar figure; None where a layer lacks it or there is no layer."""
    means: dict[str, float | None] = {}
    for name in RoutingFigures.SCALARS:
        values = [getattr(figures, name) for figures in layers.values()]
        means[name] = sum(values) / len(values) if values and None not in values else None
    return means


def tokens_each(routing: Routing, labels_B: Tensor) -> int:
    """Tokens in each of as many equal groups as there are labels. Raises `ValueError` where there are no such."""
    tokens, groups = routing.num_tokens, len(labels_B)
    if groups == 0 and tokens == 0:
        return 0
    if groups == 0 or tokens % groups:
        raise ValueError(f"there are {groups} labels for {tokens} tokens; allowed: one for each group of equally many")
    return tokens // groups


def entropy(probabilities: Tensor) -> float:
    """In nats, with 0 ln 0 = 0."""
    return float(torch.special.entr(probabilities).sum())


def shares(counts: Tensor) -> Tensor:
    """Counts over their sum; 0 where there is none."""
    return counts.double() / max(int(counts.sum()), 1)


def least_entropy(experts_per_token: float) -> float:
    """The smallest entropy (nats) of the load when tokens use that many different experts each, in the mean.

    No expert can hold more than one pair a token, so the load is most uneven when ⌊k⌋ experts serve every token
    and one more serves the rest. For whole k this is ln k.
    """
    whole = math.floor(experts_per_token)
    rest = experts_per_token - whole
    shares = [1 / experts_per_token] * whole + [rest / experts_per_token] if experts_per_token else []
    return sum(-share * math.log(share) for share in shares if share > 0)


def mutual_information(counts_LE: Tensor) -> float:
    """Between row and column of a table of counts, in nats; 0 for an empty table."""
    joint = shares(counts_LE)
    return max(0.0, entropy(joint.sum(0)) + entropy(joint.sum(1)) - entropy(joint))
