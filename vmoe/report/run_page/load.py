"""The load at the end: who serves how much, how even that is, how many experts a token has; all figures by layer."""

from __future__ import annotations

from typing import NamedTuple

from vmoe.report.counts import COUNTS, Integers
from vmoe.report.metrics import Served
from vmoe.report.plots import entropy_by_layer, expert_load, experts_per_token
from vmoe.report.run_files import RunFiles
from vmoe.report.runs import RESULT
from vmoe.report.table import Column, Table

from .blocks import Absent, Block, Plot, Tabled
from .figures import FIGURES
from .reasons import basis, why


class LayerLoad(NamedTuple):
    """load, mass: share of the pairs and of the summed gate weights, per expert; mass may be empty. experts: share of
    the tokens with 0, 1, …, E active experts.
    """

    name: str
    load: tuple[float, ...]
    mass: tuple[float, ...]
    experts: tuple[float, ...]


def load_of(files: RunFiles) -> list[LayerLoad]:
    """Of the result, or where it does not say it, of the counts."""
    if files.run is not None and files.run.routing is not None:
        return [
            LayerLoad(layer.layer, layer.load, layer.gate_mass, Served(0, layer.experts_per_token).load)
            for layer in files.run.routing.layers
        ]
    if files.counts is None:
        return []
    return [
        LayerLoad(name, share(layer.pairs), share(layer.mass), tuple(layer.experts_per_token.tolist()))
        for name, layer in files.counts.layers.items()
    ]


def share(counts: Integers) -> tuple[float, ...]:
    return Served(0, tuple(counts.tolist())).load


def load(files: RunFiles) -> list[Block]:
    layers = load_of(files)
    if not layers:
        return [Absent(f"No load of experts: {why(files, RESULT, COUNTS)}")]
    if len({len(layer.load) for layer in layers}) > 1:
        return [Absent("No load of experts: layers differ in their number of experts.")]
    return [_load(files, layers), _mass(files, layers), _entropy(files), _experts(files, layers)]


def _load(files: RunFiles, layers: list[LayerLoad]) -> Block:
    figures = [] if files.run is None or files.run.routing is None else files.run.routing.layers
    caption = (
        f"Share of each layer's active pairs of token and expert that an expert takes; a row sums to 100 % "
        f"({basis(files)}). The bar marks the fair share 1/E: rows of that one colour are even load, single bright "
        "cells a collapse onto few experts, black cells experts without work."
    )
    return Plot(
        "load",
        "Load per expert and layer",
        lambda: expert_load(
            [layer.load for layer in layers],
            [layer.name for layer in layers],
            entropy=[one.figures.entropy for one in figures] or None,
            entropy_min=[one.figures.entropy_min for one in figures] or None,
        ),
        caption,
    )


def _mass(files: RunFiles, layers: list[LayerLoad]) -> Block:
    if not all(layer.mass for layer in layers):
        return Absent(f"No gate mass: {why(files, COUNTS)}")
    caption = (
        f"Share of each layer's summed gate weights that an expert takes; a row sums to 100 % ({basis(files)}). Where "
        "it is less than the share of the pairs, tokens use the expert beside a stronger one."
    )
    return Plot(
        "gate_mass",
        "Gate mass per expert and layer",
        lambda: expert_load(
            [layer.mass for layer in layers], [layer.name for layer in layers], what="gate mass (% of the weights)"
        ),
        caption,
    )


def _entropy(files: RunFiles) -> Block:
    if files.run is None or files.run.routing is None:
        return Absent(f"No entropy of each layer: {why(files, RESULT)}")
    layers = files.run.routing.layers
    caption = (
        f"Entropy of each layer's load over ln E ({basis(files)}). 1 is perfectly even. The left end of a bar is the "
        "least there can be at the layer's density, ln k / ln E with k experts a token: all tokens at the same experts."
    )
    return Plot(
        "entropy",
        "Routing entropy of each layer",
        lambda: entropy_by_layer(
            [layer.figures.entropy for layer in layers],
            [layer.figures.entropy_min for layer in layers],
            [layer.layer for layer in layers],
        ),
        caption,
    )


def _experts(files: RunFiles, layers: list[LayerLoad]) -> Block:
    caption = (
        f"Share of each layer's tokens that activate 0, 1, …, E experts; a row sums to 100 % ({basis(files)}). Gates "
        "with a fixed k have one column. With others the spread shows how unequally tokens are served; one without an "
        "expert goes on by its residual alone."
    )
    return Plot(
        "experts_per_token",
        "Experts a token",
        lambda: experts_per_token([layer.experts for layer in layers], [layer.name for layer in layers]),
        caption,
    )


def table(files: RunFiles) -> Block:
    """Every figure of every layer."""
    if files.run is None or files.run.routing is None:
        return Absent(f"No figures by layer: {why(files, RESULT)}")
    routing = files.run.routing
    named = [*((layer.layer, layer.figures) for layer in routing.layers), ("mean", routing.mean)]
    names = tuple(name for name, _ in named)
    columns = [Column("layer", names, {"layer": names}, numeric=False)]
    meanings = []
    for figure in FIGURES:
        values = tuple(getattr(figures, figure.key) for _, figures in named)
        if set(values) != {None}:
            columns.append(Column(figure.header, tuple(map(figure.cell, values)), {figure.key: values}))
            meanings.append(f"{figure.header}: {figure.meaning.format(label=files.run.task.label)}")
    caption = f"What each layer's counts say ({basis(files)}). {'; '.join(meanings)}."
    return Tabled("figures by layer", Table(tuple(columns)), caption)
