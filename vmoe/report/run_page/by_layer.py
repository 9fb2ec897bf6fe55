"""What the counts of an evaluation say of each layer: which experts are active together, and where."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from vmoe.report.counts import COUNTS, LayerCounts
from vmoe.report.page import escape
from vmoe.report.plots import co_activation, curves, position_load
from vmoe.report.run_files import RunFiles

from .blocks import Absent, Block, ByLayer, Shown
from .reasons import counted, why
from .series import groups

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_EXPERTS = 12  # lines of a figure, or entries of a list
MOST_BINS = 64  # of a sequence's positions


def together(files: RunFiles) -> Block:
    """Which experts share tokens."""
    if files.counts is None:
        return Absent(f"Not known which experts are active together: {why(files, COUNTS)}")
    layers = files.counts.layers
    caption = (
        "Share of the tokens that activate both experts; on the diagonal, of those that activate the expert at all "
        f"({counted(files)}). Compare a cell with the product of its two diagonal cells: above it the two experts seek "
        "the same tokens, below it they avoid each other."
    )
    shown = [Shown(name, partial(co_activation, layer.co_activation.tolist())) for name, layer in layers.items()]
    return ByLayer("co_activation", "Experts active together", shown, caption)


def positions(files: RunFiles) -> Block:
    """Where in a sequence each expert works: over the image's patches, where positions are some, else along it."""
    if files.counts is None:
        return Absent(f"Not known where in a sequence experts work: {why(files, COUNTS)}")
    layers = {name: layer for name, layer in files.counts.layers.items() if len(layer.tokens_by_position)}
    if not layers:
        return Absent(f"Not known where in a sequence experts work: {files.folder / COUNTS} holds no positions.")
    on_grid = {name: layer for name, layer in layers.items() if layer.grid.size}
    return _over_patches(files, on_grid) if on_grid else _along(files, layers)


def _over_patches(files: RunFiles, layers: Mapping[str, LayerCounts]) -> ByLayer:
    one = next(iter(layers.values()))
    rows, columns = one.grid[1:].tolist()
    caption = (
        f"For each expert, the share of the tokens at each of {rows} × {columns} patch positions that activate it "
        f"({counted(files)}). A flat map: the expert does not mind where a patch lies. A bright region: it works there."
    )
    shown = []
    for name, layer in layers.items():
        prefix, rows, columns = layer.grid.tolist()
        load_HWE = layer.position_load[prefix:].reshape(rows, columns, layer.num_experts)
        shown.append(Shown(name, partial(position_load, load_HWE), _prefix_tokens(layer, prefix)))
    return ByLayer("positions", "Where in the image each expert works", shown, caption)


def _prefix_tokens(layer: LayerCounts, prefix: int) -> str:
    """What serves the tokens that stand before the patches, such as the class token."""
    lines = []
    for position, load_E in enumerate(layer.position_load[:prefix]):
        order = np.argsort(-load_E, kind="stable")[:MOST_EXPERTS]
        served = ", ".join(f"{expert} ({load_E[expert]:.1%})" for expert in order.tolist() if load_E[expert] > 0)
        lines.append(f"Token {position}, before the patches, is served by expert {served or 'none'}.")
    return "".join(f"<p>{escape(line)}</p>" for line in lines)


def _along(files: RunFiles, layers: Mapping[str, LayerCounts]) -> ByLayer:
    one = next(iter(layers.values()))
    parts = groups(len(one.tokens_by_position), MOST_BINS)
    each = max(part.stop - part.start for part in parts)
    experts = one.num_experts
    some = f" The {MOST_EXPERTS} experts of {experts} are shown that differ most." if experts > MOST_EXPERTS else ""
    caption = (
        f"Share of the tokens at a position of the sequence that activate each expert ({counted(files)}"
        f"{f'; a point is {each} positions' if each > 1 else ''}).{some} Level lines: routing does not mind how much "
        "stands before a token."
    )
    shown = [Shown(name, _lines(layer)) for name, layer in layers.items()]
    return ByLayer("positions", "Where in the sequence each expert works", shown, caption)


def _lines(layer: LayerCounts) -> Callable[[], Axes]:
    parts = groups(len(layer.tokens_by_position), MOST_BINS)
    pairs_BE = np.array([layer.pairs_by_position[part].sum(0) for part in parts])
    tokens_B = np.array([layer.tokens_by_position[part].sum() for part in parts])
    share_BE = pairs_BE / np.maximum(tokens_B, 1)[:, None]
    chosen = sorted(np.argsort(-share_BE.std(0), kind="stable")[:MOST_EXPERTS].tolist())
    middles = [(part.start + part.stop - 1) / 2 for part in parts]
    series = {f"expert {expert}": (middles, (100 * share_BE[:, expert]).tolist()) for expert in chosen}
    return partial(curves, series, xlabel="position in the sequence", ylabel="tokens (%)")
