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
    Figure("load_max_ratio", "largest/mean", False, 2, "largest share over the fair one, 1/E"),
    Figure("load_min_ratio", "least/mean", False, 2, "smallest share over the fair one"),
    Figure("dead", "dead %", True, 1, "experts without a single active pair"),
    Figure("nearly_dead", "nearly dead %", True, 1, "experts with less than 1 % of the fair share"),
    Figure("density", "density", False, 3, "active pairs of token and expert over all pairs"),
    Figure("compute_density", "computed", False, 3, "rows that experts compute over all pairs"),
    Figure("changed", "changed %", True, 1, "tokens of the probe with other experts than at the evaluation before"),
    Figure("label_information", "label information, bits", False, 3, "mutual information of {label} and expert"),
    Figure(
        "label_information_share",
        "label information %",
        True,
        1,
        "the same over the entropy of the expert",
    ),
)
