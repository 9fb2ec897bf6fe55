"""Figures of routing: what counts say of a layer, and the mathematics of it.

Shapes: E experts, L labels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

NEARLY_DEAD = 0.01  # of an expert's fair share of the pairs


@dataclass(frozen=True)
class LoadFigures:
    """What the active pairs of a layer's experts say. Entropies are normalised by ln E: 1 is even, 0 where E is 1 or
    nothing is active.

    entropy: of the load; entropy_min: the least it can be at this density (ln k / ln E with k experts a token).
    load_cv: standard deviation of the load over its mean; load_max: the largest share; load_max_ratio and
    load_min_ratio: largest and smallest share over the mean share.
    dead: share of experts without a pair; nearly_dead: with less than 1 % of a fair share.
    density: active pairs over all pairs.
    load: share of the pairs, per expert.
    """

    entropy: float
    entropy_min: float
    load_cv: float
    load_max: float
    load_max_ratio: float
    load_min_ratio: float
    dead: float
    nearly_dead: float
    density: float
    load: tuple[float, ...]

    SCALARS: ClassVar[tuple[str, ...]] = (
        *("entropy", "entropy_min", "load_cv", "load_max", "load_max_ratio", "load_min_ratio"),
        *("dead", "nearly_dead", "density"),
    )


@dataclass(frozen=True)
class RoutingFigures(LoadFigures):
    """All that a layer's counts say, besides the figures of the load.

    token_entropy: mean over tokens of the entropy of the token's own weights, normalised by ln E.
    compute_density: rows that experts compute over all pairs, which is the density but for Soft MoE, where every pair
    is active and experts compute slots.
    gate_mass: share of the summed weights, per expert.
    experts_per_token: number of tokens with 0, 1, …, E active experts.
    co_activation: (E, E), share of the tokens that activate both i and j.
    label_information: mutual information between label and expert over the pairs, in bits, and
    label_information_share: the same over the entropy of the expert; None where no labels were given.
    """

    token_entropy: float
    compute_density: float
    gate_mass: tuple[float, ...]
    experts_per_token: tuple[int, ...]
    co_activation: tuple[tuple[float, ...], ...]
    label_information: float | None
    label_information_share: float | None

    SCALARS: ClassVar[tuple[str, ...]] = (
        *LoadFigures.SCALARS,
        *("token_entropy", "compute_density", "label_information", "label_information_share"),
    )


def load_figures(pairs_E: Tensor, tokens: int) -> dict[str, Any]:
    """The fields of `LoadFigures`, of each expert's active pairs (int64) and the number of tokens."""
    num_experts, pairs = len(pairs_E), int(pairs_E.sum())
    scale = entropy_scale(num_experts)
    load_E = shares(pairs_E)
    mean = 1 / num_experts if pairs else 1.0
    return {
        "entropy": entropy(load_E) / scale,
        "entropy_min": least_entropy(pairs / max(tokens, 1)) / scale,
        "load_cv": float(load_E.std(correction=0)) / mean,
        "load_max": float(load_E.max()),
        "load_max_ratio": float(load_E.max()) / mean,
        "load_min_ratio": float(load_E.min()) / mean,
        "dead": float((pairs_E == 0).double().mean()),
        "nearly_dead": float((pairs_E < NEARLY_DEAD * pairs / num_experts).double().mean()) if pairs else 1.0,
        "density": pairs / max(tokens * num_experts, 1),
        "load": tuple(load_E.tolist()),
    }


def mean_figures(layers: Mapping[str, LoadFigures]) -> dict[str, float | None]:
    """The mean over layers of each scalar figure; None where a layer lacks it or there is no layer."""
    names = next(iter(layers.values())).SCALARS if layers else RoutingFigures.SCALARS
    means: dict[str, float | None] = {}
    for name in names:
        values = [getattr(figures, name) for figures in layers.values()]
        means[name] = sum(values) / len(values) if values and None not in values else None
    return means


def entropy_scale(num_experts: int) -> float:
    """What an entropy in nats is divided by: ln E, the largest there is; ∞ for a single expert."""
    return math.log(num_experts) if num_experts > 1 else math.inf


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
    parts = [1 / experts_per_token] * whole + [rest / experts_per_token] if experts_per_token else []
    return sum(-share * math.log(share) for share in parts if share > 0)


def mutual_information(counts_LE: Tensor) -> float:
    """Between row and column of a table of counts, in nats; 0 for an empty table."""
    joint = shares(counts_LE)
    return max(0.0, entropy(joint.sum(0)) + entropy(joint.sum(1)) - entropy(joint))
