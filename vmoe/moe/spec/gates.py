"""Specs of the gates, one class a method; the defaults are the papers' where they state one."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Annotated, Any, ClassVar, Literal

from .base import STRICT, ByKind, require, require_coefficient, require_positive


@dataclass(frozen=True, kw_only=True)
class Dense:
    """No gate: the host keeps its MLPs, or, where `experts` are given, has one such expert for every token."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    kind: Literal["dense"] = "dense"

    def active_experts(self, num_experts: int, tokens: int | None = None) -> float:
        """Experts a token is meant to use: there are none to choose from."""
        return 0.0

    def check(self, num_experts: int) -> None:
        """Any number of experts goes with no gate."""


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What the layer's spec asks of a gate's.

    SCORES_FEATURES: whether the method scores experts by their own low-rank features.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    SCORES_FEATURES: ClassVar[bool] = False

    def why_not_causal(self) -> str | None:
        """Why a model that sees no later token, and computes one token at a time, cannot have this gate; or None."""
        return None

    def active_experts(self, num_experts: int, tokens: int | None = None) -> float:
        """Experts whose compute a token is meant to cost, in the mean; tokens: of a sequence, where it is known."""
        raise NotImplementedError

    def check(self, num_experts: int) -> None:
        """Raise `ValueError` where the method cannot work with so many experts."""


@dataclass(frozen=True, kw_only=True)
class KExperts(Gate):
    """What the gates share that give a token k experts, each or in the mean."""

    k: int = 2

    def __post_init__(self) -> None:
        require(self.k >= 1, "k", self.k, "1 or more")

    def active_experts(self, num_experts: int, tokens: int | None = None) -> float:
        return float(self.k)

    def check(self, num_experts: int) -> None:
        require(self.k <= num_experts, "gate.k", self.k, f"1 to {num_experts}, which is num_experts")


@dataclass(frozen=True, kw_only=True)
class FixedK(KExperts):
    """What the gates share that give every token its k best-scored experts.

    k: experts a token.
    renormalize: weights by a softmax over the k selected scores (True) or over all E (False).
    """

    renormalize: bool = True


@dataclass(frozen=True, kw_only=True)
class TopK(FixedK):
    """Learned router: the k largest of ``x W_r`` (Shazeer et al. 2017, arXiv 1701.06538; Switch, 2101.03961).

    With k = 1 and `renormalize` every weight is 1, so only the balance loss trains the router; Switch itself sets
    ``renormalize: false``.

    balance: coefficient of the Switch load-balancing loss; 0 turns it off.
    z_loss: coefficient of the router z-loss (ST-MoE, 2202.08906, eq. 5); 0 turns it off.
    jitter: ε; in training the router reads x times noise from U(1−ε, 1+ε) (Switch, section 2.4); 0 turns it off.
    bias_rate: u of the auxiliary-loss-free controller (2408.15664, algorithm 1; the paper's u is 1e-3); 0 turns it
    off. With it, set ``balance: 0`` for the published method.
    """

    kind: Literal["topk"] = "topk"
    balance: float = 0.01
    z_loss: float = 0.0
    jitter: float = 0.0
    bias_rate: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_coefficient("balance", self.balance)
        require_coefficient("z_loss", self.z_loss)
        require(0 <= self.jitter < 1, "jitter", self.jitter, "0 or more, less than 1")
        require_coefficient("bias_rate", self.bias_rate)


@dataclass(frozen=True, kw_only=True)
class SelfRouting(FixedK):
    """Self-Routing: E coordinates of x itself are the scores (arXiv 2604.00421). No gate parameters, no loss.

    offset: first of the E coordinates; None takes the last E; a list gives each MoE layer its own.
    input: the x whose coordinates they are: ``normed``, what the experts see, or ``residual``, the residual stream
    before the block's norm.
    """

    kind: Literal["self"] = "self"
    offset: int | tuple[int, ...] | None = None
    input: Literal["normed", "residual"] = "normed"

    def __post_init__(self) -> None:
        super().__post_init__()
        offsets = self.offset if isinstance(self.offset, tuple) else (self.offset or 0,)
        require(
            len(offsets) > 0 and min(offsets) >= 0,
            "offset",
            list(self.offset) if isinstance(self.offset, tuple) else self.offset,
            "0 or more, a list of such, one for each MoE layer, or null",
        )
        require(self.input in ("normed", "residual"), "input", self.input, "normed, residual")


@dataclass(frozen=True, kw_only=True)
class Random(FixedK):
    """Random routing, the control for learned and self routing.

    source: ``fixed`` projects x by a frozen W ~ N(0, 0.02), as a learned router that never learns;
    ``uniform`` draws scores afresh in every training forward and hashes them from the position in evaluation;
    ``hash`` hashes the token's position always (Hash Layers, arXiv 2106.04426). The last two weigh by 1/k.
    """

    kind: Literal["random"] = "random"
    source: Literal["fixed", "uniform", "hash"] = "fixed"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.source in ("fixed", "uniform", "hash"), "source", self.source, "fixed, uniform, hash")

    def why_not_causal(self) -> str | None:
        if self.source == "fixed":
            return None
        return f"source {self.source} routes by a token's position in the forward, and one token at a time has none"


@dataclass(frozen=True, kw_only=True)
class AutonomyOfExperts(FixedK):
    """Autonomy-of-Experts: the k experts with the largest norm ``‖x A_e‖₂`` of their features (arXiv 2501.13074).

    renormalize: True weighs by a softmax over the k selected norms; False, as the authors' code, over all E.
    balance: coefficient of the Switch load-balancing loss; 0 turns it off.
    """

    SCORES_FEATURES: ClassVar[bool] = True
    kind: Literal["aoe"] = "aoe"
    balance: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_coefficient("balance", self.balance)


@dataclass(frozen=True, kw_only=True)
class Relu(KExperts):
    """ReMoE: ``relu(x W_r)`` is the weight, and every expert with a positive one is active (arXiv 2412.14711).

    k: experts a token in the mean, to which the adaptive L1 loss steers the density k/E.
    balance_start, balance_factor: λ0 of that loss and α, by which λ is multiplied or divided after each step.
    """

    kind: Literal["relu"] = "relu"
    balance_start: float = 1e-8
    balance_factor: float = 1.2

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("balance_start", self.balance_start)
        require(1 < self.balance_factor < inf, "balance_factor", self.balance_factor, "more than 1, finite")


@dataclass(frozen=True, kw_only=True)
class RoutingFree(Gate):
    """Routing-Free MoE: every expert decides by the norm of its own low-rank features (arXiv 2604.00801).

    threshold, temperature: a pair is active when its score is at least threshold / temperature (θ/τ).
    norm: of the expert's R features.
    target_density: the share ρ∞ of active pairs that the balance steers to.
    expert_share: μ, the share of expert balancing in the balance loss; the rest is token balancing.
    balance_start, balance_rate: λ0 and η of its adaptive coefficient.
    start: the expected score at initialisation, in multiples of θ/τ; the gate's scale is set to reach it.
    """

    SCORES_FEATURES: ClassVar[bool] = True
    kind: Literal["routing_free"] = "routing_free"
    threshold: float = 1.0
    temperature: float = 1.0
    norm: Literal["l1", "l2", "linf"] = "l2"
    target_density: float = 0.25
    expert_share: float = 0.5
    balance_start: float = 1e-10
    balance_rate: float = 0.02
    start: float = 2.0

    def __post_init__(self) -> None:
        require_positive("threshold", self.threshold)
        require_positive("temperature", self.temperature)
        require(self.norm in ("l1", "l2", "linf"), "norm", self.norm, "l1, l2, linf")
        require(0 < self.target_density <= 1, "target_density", self.target_density, "more than 0, at most 1")
        require(0 <= self.expert_share <= 1, "expert_share", self.expert_share, "0 to 1")
        require(0 < self.balance_start <= 1, "balance_start", self.balance_start, "more than 0, at most 1")
        require_positive("balance_rate", self.balance_rate)
        require_positive("start", self.start)

    def active_experts(self, num_experts: int, tokens: int | None = None) -> float:
        return self.target_density * num_experts


@dataclass(frozen=True, kw_only=True)
class ExpertChoice(Gate):
    """Expert choice: every expert takes its ``capacity_factor · tokens / E`` best tokens (arXiv 2202.09368).

    A token is served by 0 to E experts, by capacity_factor in the mean.

    group: the tokens among which an expert chooses: those of a ``sequence``, so that its result does not depend on
    the others in the batch, or those of the whole ``batch``.
    """

    kind: Literal["expert_choice"] = "expert_choice"
    capacity_factor: float = 2.0
    group: Literal["sequence", "batch"] = "sequence"

    def __post_init__(self) -> None:
        require_positive("capacity_factor", self.capacity_factor)
        require(self.group in ("sequence", "batch"), "group", self.group, "sequence, batch")

    def why_not_causal(self) -> str | None:
        return "its experts choose among all tokens of a sequence, later ones too"

    def active_experts(self, num_experts: int, tokens: int | None = None) -> float:
        return self.capacity_factor

    def check(self, num_experts: int) -> None:
        allowed = f"more than 0, at most {num_experts}, which is num_experts"
        require(self.capacity_factor <= num_experts, "gate.capacity_factor", self.capacity_factor, allowed)


@dataclass(frozen=True, kw_only=True)
class Soft(Gate):
    """Soft MoE: experts serve slots, each a weighted mean of a sequence's tokens (arXiv 2308.00951).

    slots: an expert; None takes as many as make the slots of all experts together the sequence's tokens, the paper's
    choice of compute.
    normalize: tokens and slot vectors are brought to unit length, with a learned scale (section 2.3).
    """

    kind: Literal["soft"] = "soft"
    slots: int | None = None
    normalize: bool = True

    def __post_init__(self) -> None:
        require(self.slots is None or self.slots >= 1, "slots", self.slots, "1 or more, or null")

    def why_not_causal(self) -> str | None:
        return "its slots mix all tokens of a sequence, later ones too"

    def active_experts(self, num_experts: int, tokens: int | None = None) -> float:
        if tokens is None:
            raise ValueError("the soft gate needs to know how many tokens a sequence has")
        return num_experts * self.slots_for(num_experts, tokens) / tokens

    def slots_for(self, num_experts: int, tokens: int) -> int:
        """Slots an expert, for sequences of so many tokens."""
        return self.slots if self.slots is not None else max(1, round(tokens / num_experts))


GateSpec = Annotated[
    Dense | TopK | SelfRouting | Random | AutonomyOfExperts | Relu | RoutingFree | ExpertChoice | Soft, ByKind()
]
