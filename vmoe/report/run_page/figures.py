"""What the figures of a layer are called, and how tables show them."""

from __future__ import annotations

from typing import NamedTuple


class Figure(NamedTuple):
    """header: of its column. percent: shown in hundredths. digits: after the point. meaning: for people."""

    key: str
    header: str
    percent: bool
    digits: int
    meaning: str

    def cell(self, value: float | None) -> str:
        if value is None or value != value:
            return "–"
        return f"{100 * value if self.percent else value:.{self.digits}f}"


FIGURES = (
    Figure("entropy", "entropy", False, 3, "of the load, over ln E: 1 is perfectly even"),
    Figure("entropy_min", "least entropy", False, 3, "the least that the load's entropy can be at this density"),
    Figure(
        "token_entropy", "token entropy", False, 3, "mean over tokens of the entropy of their own weights, over ln E"
    ),
    Figure("load_max", "largest load %", True, 1, "largest share of the active pairs that one expert takes"),
    Figure("load_cv", "load CV", False, 2, "standard deviation of the load over its mean"),
    Figure("dead", "dead %", True, 1, "experts without a single active pair"),
    Figure("density", "density", False, 3, "active pairs of token and expert over all pairs"),
    Figure(
        "label_information_share",
        "label information %",
        True,
        1,
        "mutual information of {label} and expert over the entropy of the expert, over the active pairs",
    ),
)
