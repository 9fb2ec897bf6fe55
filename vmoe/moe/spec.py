"""What a MoE layer is made of, as plain values: the one place where its hyperparameters have defaults.

A spec is immutable, compares by value, and turns into nested dictionaries of plain values with
`dataclasses.asdict`, which is how it travels in a checkpoint. Its ``kind`` selects the class that computes it
(`vmoe.moe.build`). Impossible values raise `ValueError` at construction. `vmoe.config` reads the same classes
from YAML.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Annotated, Any, ClassVar, Literal, get_args

# How pydantic reads these classes in `vmoe.config`; a plain value, so that the core needs torch alone.
STRICT: dict[str, Any] = {"extra": "forbid", "strict": True}


def require(condition: bool, key: str, value: object, allowed: str) -> None:
    """Raise `ValueError` naming the key, its value and what is allowed, unless the condition holds."""
    if not condition:
        raise ValueError(f"{key} is {value!r}; allowed: {allowed}")


class ByKind:
    """Tells pydantic to choose among dataclasses by their `kind`, in the plain dictionaries its schemas are."""

    def __get_pydantic_core_schema__(self, union: Any, handler: Any) -> dict[str, Any]:
        choices = {choice.kind: handler.generate_schema(choice) for choice in get_args(union)}
        return {"type": "tagged-union", "discriminator": "kind", "choices": choices}


# --- gates -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Dense:
    """No MoE: the host keeps its MLPs. The baseline of every table."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    kind: Literal["dense"] = "dense"

    def active_experts(self, num_experts: int) -> float:
        """Experts a token is meant to use: there are none."""
        return 0.0


@dataclass(frozen=True, kw_only=True)
class FixedK:
    """What the gates share that give every token its k best-scored experts.

    k: experts a token.
    renormalize: weights by a softmax over the k selected scores (True) or over all E (False).
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    k: int = 2
    renormalize: bool = True

    def __post_init__(self) -> None:
        require(self.k >= 1, "k", self.k, "1 or more")

    def active_experts(self, num_experts: int) -> float:
        """Experts a token is meant to use."""
        return float(self.k)


@dataclass(frozen=True, kw_only=True)
class TopK(FixedK):
    """Learned router: the k largest of ``x W_r`` (Shazeer et al. 2017, arXiv 1701.06538; Switch, 2101.03961).

    With k = 1 and `renormalize` every weight is 1, so only the balance loss trains the router; Switch itself sets
    ``renormalize: false``.

    balance: coefficient of the Switch load-balancing loss; 0 turns it off.
    z_loss: coefficient of the router z-loss (ST-MoE, 2202.08906, eq. 5); 0 turns it off.
    """

    kind: Literal["topk"] = "topk"
    balance: float = 0.01
    z_loss: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.balance < inf, "balance", self.balance, "0 or more, finite")
        require(0 <= self.z_loss < inf, "z_loss", self.z_loss, "0 or more, finite")


@dataclass(frozen=True, kw_only=True)
class SelfRouting(FixedK):
    """Self-Routing: E coordinates of x itself are the scores (arXiv 2604.00421). No gate parameters, no loss.

    offset: first of the E coordinates; None takes the last E.
    """

    kind: Literal["self"] = "self"
    offset: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.offset is None or self.offset >= 0, "offset", self.offset, "0 or more, or null")


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


@dataclass(frozen=True, kw_only=True)
class RoutingFree:
    """Routing-Free MoE: every expert decides by the norm of its own low-rank features (arXiv 2604.00801).

    threshold, temperature: a pair is active when its score is at least threshold / temperature (θ/τ).
    norm: of the expert's R features.
    target_density: the share ρ∞ of active pairs that the balance steers to.
    expert_share: μ, the share of expert balancing in the balance loss; the rest is token balancing.
    balance_start, balance_rate: λ0 and η of its adaptive coefficient.
    start: the expected score at initialisation, in multiples of θ/τ; the gate's scale is set to reach it.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
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
        require(0 < self.threshold < inf, "threshold", self.threshold, "more than 0, finite")
        require(0 < self.temperature < inf, "temperature", self.temperature, "more than 0, finite")
        require(self.norm in ("l1", "l2", "linf"), "norm", self.norm, "l1, l2, linf")
        require(0 < self.target_density <= 1, "target_density", self.target_density, "more than 0, at most 1")
        require(0 <= self.expert_share <= 1, "expert_share", self.expert_share, "0 to 1")
        require(0 < self.balance_start <= 1, "balance_start", self.balance_start, "more than 0, at most 1")
        require(0 < self.balance_rate < inf, "balance_rate", self.balance_rate, "more than 0, finite")
        require(0 < self.start < inf, "start", self.start, "more than 0, finite")

    def active_experts(self, num_experts: int) -> float:
        """Experts a token is meant to use in the mean."""
        return self.target_density * num_experts


GateSpec = Annotated[Dense | TopK | SelfRouting | Random | RoutingFree, ByKind()]

# --- experts ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Mlp:
    """E copies of the host's own MLP, ``fc2(act(fc1 x))``.

    hidden: the width F, or ``match``: active FLOPs equal the host's MLP's; or ``host``: its full width.
    activation: the name of a timm activation; None takes the host's.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    kind: Literal["mlp"] = "mlp"
    hidden: int | Literal["match", "host"] = "match"
    activation: str | None = None

    def __post_init__(self) -> None:
        _require_hidden(self.hidden)


@dataclass(frozen=True, kw_only=True)
class Glu:
    """Gated linear units, ``W_down(act(x W_gate) ⊙ (x W_up))``, without biases (Shazeer 2020, 2002.05202)."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    kind: Literal["glu"] = "glu"
    hidden: int | Literal["match", "host"] = "match"
    activation: str | None = None

    def __post_init__(self) -> None:
        _require_hidden(self.hidden)


@dataclass(frozen=True, kw_only=True)
class LowRankGlu:
    """GLU experts whose gate is low-rank, ``W_down(act(z B) ⊙ (x W_up))`` with ``z = x A``.

    From Autonomy-of-Experts (arXiv 2501.13074) and Routing-Free (2604.00801): the norm of z scores the expert.

    rank: R, or ``match``: R = F × (active share of the experts), which equals the FLOPs of a GLU top-k layer.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    kind: Literal["lowrank_glu"] = "lowrank_glu"
    hidden: int | Literal["match", "host"] = "match"
    rank: int | Literal["match"] = "match"
    activation: str | None = None

    def __post_init__(self) -> None:
        _require_hidden(self.hidden)
        require(self.rank == "match" or (isinstance(self.rank, int) and self.rank >= 1),
                "rank", self.rank, "1 or more, or match")  # fmt: skip


ExpertSpec = Annotated[Mlp | Glu | LowRankGlu, ByKind()]


def _require_hidden(hidden: int | str) -> None:
    allowed = hidden in ("match", "host") or (isinstance(hidden, int) and hidden >= 1)
    require(allowed, "hidden", hidden, "1 or more, match, host")


# --- the layer, and where it goes ------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class MoESpec:
    """MoE layers for a host model: which gate, which experts, how many, in which blocks.

    experts: None takes what the gate's method uses (`lowrank_glu` for `routing_free`, else `mlp`).
    layers: ``all``; ``everyN``, the last block of each N (every2: blocks 1, 3, 5 …); ``lastN``; or block numbers
    from 0.
    init: ``fresh`` draws expert weights with the standard deviation of the host's; ``upcycle`` copies the host's
    MLP into every expert (arXiv 2212.05055), which needs full-width `mlp` experts.
    dispatch: the path that runs the experts; ``auto`` picks one by device, type and size.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    gate: GateSpec = TopK()
    experts: ExpertSpec | None = None
    num_experts: int = 8
    layers: str | tuple[int, ...] = "every2"
    init: Literal["fresh", "upcycle"] = "fresh"
    dispatch: Literal["auto", "reference"] = "auto"

    def __post_init__(self) -> None:
        require(self.num_experts >= 1, "num_experts", self.num_experts, "1 or more")
        require(self.init in ("fresh", "upcycle"), "init", self.init, "fresh, upcycle")
        require(self.dispatch in ("auto", "reference"), "dispatch", self.dispatch, "auto, reference")
        if isinstance(self.gate, FixedK):
            k = self.gate.k
            require(k <= self.num_experts, "gate.k", k, f"1 to {self.num_experts}, which is num_experts")
        if self.experts is None and not isinstance(self.gate, Dense):
            object.__setattr__(self, "experts", LowRankGlu() if isinstance(self.gate, RoutingFree) else Mlp())
        if isinstance(self.gate, RoutingFree):
            low_rank = isinstance(self.experts, LowRankGlu)
            require(
                low_rank,
                "experts.kind",
                self.experts and self.experts.kind,
                "lowrank_glu, whose features routing_free scores by",
            )
        if self.init == "upcycle":
            upcycled = isinstance(self.experts, Mlp) and self.experts.hidden == "host"
            require(upcycled, "init", self.init, "fresh; upcycle needs experts {kind: mlp, hidden: host}")
