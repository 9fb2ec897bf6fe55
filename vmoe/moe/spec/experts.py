"""Specs of the experts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from .base import STRICT, ByKind, require


@dataclass(frozen=True, kw_only=True)
class Experts:
    """What all experts share.

    hidden: the width F, or ``match``: active FLOPs equal the host's MLP's; or ``host``: its full width.
    activation: the name of a timm activation; None takes the host's.
    dropout: of the experts' hidden rows in training ("expert dropout": Switch, arXiv 2101.03961, section 2.4); None
    takes the host's.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    hidden: int | Literal["match", "host"] = "match"
    activation: str | None = None
    dropout: float | None = None

    def __post_init__(self) -> None:
        allowed = self.hidden in ("match", "host") or (isinstance(self.hidden, int) and self.hidden >= 1)
        require(allowed, "hidden", self.hidden, "1 or more, match, host")
        if self.dropout is not None:
            require(0 <= self.dropout < 1, "dropout", self.dropout, "0 or more, less than 1, or null for the host's")


@dataclass(frozen=True, kw_only=True)
class Mlp(Experts):
    """The host's own MLP, ``fc2(act(fc1 x))``."""

    kind: Literal["mlp"] = "mlp"


@dataclass(frozen=True, kw_only=True)
class Glu(Experts):
    """Gated linear units, ``W_down(act(x W_gate) ⊙ (x W_up))``, without biases (Shazeer 2020, 2002.05202)."""

    kind: Literal["glu"] = "glu"


@dataclass(frozen=True, kw_only=True)
class LowRankGlu(Experts):
    """GLU experts whose gate is low-rank, ``W_down(act(z B) ⊙ (x W_up))`` with ``z = x A``.

    From Autonomy-of-Experts (arXiv 2501.13074) and Routing-Free (2604.00801): the norm of z scores the expert.

    rank: R, or ``match``: R = F × (active share of the experts), which equals the FLOPs of a GLU top-k layer.
    """

    kind: Literal["lowrank_glu"] = "lowrank_glu"
    rank: int | Literal["match"] = "match"

    def __post_init__(self) -> None:
        super().__post_init__()
        allowed = self.rank == "match" or (isinstance(self.rank, int) and self.rank >= 1)
        require(allowed, "rank", self.rank, "1 or more, or match")


ExpertSpec = Annotated[Mlp | Glu | LowRankGlu, ByKind()]
