"""Lines of all rows in one figure, a row in the same colour in all of them: over training, and over layers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes

from vmoe.report.plots import band, curves
from vmoe.report.runs import Layer
from vmoe.report.samples import sample_of
from vmoe.report.seeds import Row

from .history import Curve

STEPS = "optimizer step"
MOST_TICKS = 16
FACTOR = 20  # between the largest and the smallest value, from which an axis is logarithmic


def draw_curves(
    rows: Sequence[Row],
    lines: Sequence[Curve],
    *,
    ylabel: str,
    xlabel: str = STEPS,
    log: bool = False,
    marks: bool = False,
) -> Axes:
    """A line for each row that has one, with its band where the row has several runs.

    A row without a line keeps its colour: the others have the same in every figure. Raises `ValueError` where there is
    no line at all.
    """
    if not any(line.steps for line in lines):
        raise ValueError("no run has logged it")
    # A blank name is not in the legend.
    names = [row.label if line.steps else " " * at for at, (row, line) in enumerate(zip(rows, lines, strict=True), 1)]
    named = dict(zip(names, lines, strict=True))
    if any(len(row.runs) > 1 for row in rows):
        shaded = {name: (line.steps, line.mean, line.low, line.high) for name, line in named.items()}
        return band(shaded, xlabel=xlabel, ylabel=ylabel, log=log, markers=marks)
    plain = {name: (line.steps, line.mean) for name, line in named.items()}
    return curves(plain, xlabel=xlabel, ylabel=ylabel, log=log, markers=marks)


def spans_factors(lines: Sequence[Curve]) -> bool:
    """Whether the values are positive, and so far apart that a logarithmic axis shows them better."""
    values = [value for line in lines for value in line.mean]
    return bool(values) and min(values) > 0 and max(values) > FACTOR * min(values)


def draw_by_layer(rows: Sequence[Row], value: Callable[[Layer], float], *, ylabel: str) -> Axes:
    """A figure of each MoE layer, for each row a line over the depth of its layers."""
    names = [layer.layer for row in rows if row.first.routing for layer in row.first.routing.layers]
    in_blocks = all(len(re.findall(r"\d+", name)) == 1 for name in names)
    lines = [_over_layers(row, value, in_blocks=in_blocks) for row in rows]
    xlabel = "block of the MoE layer" if in_blocks else "MoE layer, from the first"
    ax = draw_curves(rows, lines, xlabel=xlabel, ylabel=ylabel, marks=True)
    places = sorted({step for line in lines for step in line.steps})
    ax.set_xticks(places[:: -(-len(places) // MOST_TICKS)])
    return ax


def _over_layers(row: Row, value: Callable[[Layer], float], *, in_blocks: bool) -> Curve:
    routings = [run.routing for run in row.runs if run.routing is not None]
    if len(routings) < len(row.runs):
        return Curve()
    layers = list(zip(*(routing.layers for routing in routings), strict=True))
    places = [_number(one[0].layer) if in_blocks else at for at, one in enumerate(layers, start=1)]
    samples = [sample_of([value(layer) for layer in one]) for one in layers]
    known = [(place, sample) for place, sample in zip(places, samples, strict=True) if sample is not None]
    return Curve(
        tuple(float(place) for place, _ in known),
        tuple(sample.mean for _, sample in known),
        tuple(sample.low for _, sample in known),
        tuple(sample.high for _, sample in known),
    )


def _number(name: str) -> int:
    return int(re.findall(r"\d+", name)[0])


def experts_per_token(rows: Sequence[Row]) -> tuple[list[str], list[list[float]]]:
    """Labels of the rows with experts, and for each the share of tokens with 0, 1, … active experts.

    Of all layers and runs of a row alike. Rows with fewer experts have 0 at the end.
    """
    labels, shares = [], []
    for row in rows:
        layers = [layer.experts_per_token for run in row.runs if run.routing for layer in run.routing.layers]
        bins = max(map(len, layers), default=0)
        counted = [np.pad(np.array(one, dtype=float), (0, bins - len(one))) for one in layers if math.fsum(one)]
        if counted:
            labels.append(row.label)
            shares.append(np.mean([one / one.sum() for one in counted], axis=0))
    most = max(map(len, shares), default=0)
    return labels, [np.pad(share, (0, most - len(share))).tolist() for share in shares]
