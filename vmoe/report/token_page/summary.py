"""What a layer did with the text as a whole: how much each expert served, and which tokens most often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from .routing import TokenLayer

FREQUENT = 12


@dataclass(frozen=True)
class Frequent:
    """A piece that an expert serves often. first: a token of that piece; count: of them it serves; of: there are."""

    first: int
    count: int
    of: int


@dataclass(frozen=True)
class LayerSummary:
    """served, strongest: number of tokens for which each expert is active, and has the largest weight.

    frequent: for each expert the pieces that it serves most often, at most `FREQUENT`. unserved: tokens without one.
    """

    served: tuple[int, ...]
    strongest: tuple[int, ...]
    frequent: tuple[tuple[Frequent, ...], ...]
    unserved: int

    @property
    def load(self) -> tuple[float, ...]:
        """Each expert's share of the active pairs."""
        pairs = sum(self.served) or 1
        return tuple(count / pairs for count in self.served)


def summarise(layer: TokenLayer, pieces: Sequence[str], num_experts: int) -> LayerSummary:
    first: dict[str, int] = {}
    for token, piece in enumerate(pieces):
        first.setdefault(piece, token)
    occurrences = Counter(pieces)
    by_expert: list[Counter[str]] = [Counter() for _ in range(num_experts)]
    for piece, experts in zip(pieces, layer.experts, strict=True):
        for expert in experts:
            by_expert[expert][piece] += 1
    strongest = Counter(experts[0] for experts in layer.experts if experts)
    return LayerSummary(
        served=tuple(counts.total() for counts in by_expert),
        strongest=tuple(strongest[expert] for expert in range(num_experts)),
        frequent=tuple(
            tuple(Frequent(first[piece], count, occurrences[piece]) for piece, count in counts.most_common(FREQUENT))
            for counts in by_expert
        ),
        unserved=sum(not experts for experts in layer.experts),
    )
