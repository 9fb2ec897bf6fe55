"""The spec of a model's MoE layers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from .base import STRICT, require, require_coefficient
from .experts import ExpertSpec, LowRankGlu, Mlp
from .gates import Dense, GateSpec, SelfRouting, TopK

DISPATCHES = ("auto", "reference", "grouped", "tiled", "triton")


@dataclass(frozen=True, kw_only=True)
class MoESpec:
    """MoE layers for a host model: which gate, which experts, how many, in which blocks.

    experts: None takes what the gate's method uses (`lowrank_glu` for `routing_free` and `aoe`, else `mlp`).
    shared_experts: experts of the same kind and width that serve every token beside the routed ones, with weight 1
    (DeepSeekMoE, arXiv 2401.06066, section 3.2).
    layers: ``all``; ``everyN``, the last block of each N (every2: blocks 1, 3, 5 …); ``lastN``; or block numbers
    from 0.
    init: ``fresh`` draws expert weights with the standard deviation of the host's; ``upcycle`` makes them of the
    host's MLP (arXiv 2212.05055; `vmoe.moe.upcycle`), which for `mlp` of the host's width is a copy in every expert.
    upcycle_noise: deviation of Gaussian noise that is added to upcycled weights, relative to their own.
    dispatch: the path that runs the experts (`vmoe.moe.dispatch`); ``auto`` takes the one for the device and type.
    recompute: keep none of the experts' hidden rows for the backward pass, and compute them again there.
    capacity: of `relu` and `routing_free`, whose number of active pairs is data: the share of all pairs that room is
    made for, from 0 to 1, so that no step waits for the device to tell that number, and `torch.compile` takes the model
    whole. More active pairs are an error. None asks the device, once a layer.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    gate: GateSpec = field(default_factory=TopK)
    experts: ExpertSpec | None = None
    num_experts: int = 8
    shared_experts: int = 0
    layers: str | tuple[int, ...] = "every2"
    init: Literal["fresh", "upcycle"] = "fresh"
    upcycle_noise: float = 0.0
    dispatch: Literal["auto", "reference", "grouped", "tiled", "triton"] = "auto"
    recompute: bool = False
    capacity: float | None = None

    def __post_init__(self) -> None:
        require(self.num_experts >= 1, "num_experts", self.num_experts, "1 or more")
        require(self.shared_experts >= 0, "shared_experts", self.shared_experts, "0 or more")
        require(self.init in ("fresh", "upcycle"), "init", self.init, "fresh, upcycle")
        require_coefficient("upcycle_noise", self.upcycle_noise)
        require(self.dispatch in DISPATCHES, "dispatch", self.dispatch, ", ".join(DISPATCHES))
        if self.capacity is not None:
            require(0 < self.capacity <= 1, "capacity", self.capacity, "more than 0 and up to 1, or null")
        self.gate.check(self.num_experts)
        if isinstance(self.gate, Dense):
            return
        by_features = self.gate.SCORES_FEATURES
        if self.experts is None:
            object.__setattr__(self, "experts", LowRankGlu() if by_features else Mlp())
        if by_features:
            kind = self.experts and self.experts.kind
            allowed = f"lowrank_glu, whose features {self.gate.kind} scores by"
            require(kind == "lowrank_glu", "experts.kind", kind, allowed)

    @property
    def keeps_host(self) -> bool:
        """Whether the host keeps its own MLPs: the dense model."""
        return isinstance(self.gate, Dense) and self.experts is None

    def check_causal(self) -> None:
        """Raise `ValueError` where the gate does not fit a model that sees no later token."""
        if not isinstance(self.gate, Dense) and (reason := self.gate.why_not_causal()):
            allowed = "allowed in a causal model: gates that look at each token alone"
            raise ValueError(f"gate.kind is {self.gate.kind!r}, and {reason}; {allowed}")

    def check_layers(self, count: int) -> None:
        """Raise `ValueError` where the spec does not fit so many MoE layers."""
        if isinstance(self.gate, SelfRouting) and isinstance(self.gate.offset, tuple):
            offsets = list(self.gate.offset)
            require(len(offsets) == count, "gate.offset", offsets, f"{count} numbers, one for each MoE layer")
