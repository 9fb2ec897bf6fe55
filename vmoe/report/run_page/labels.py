"""Which labels, classes of images or tokens of a text, each expert serves: a map where they are few, else lists."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from vmoe.report.counts import COUNTS, Counts, LayerCounts
from vmoe.report.page import as_a_label, escape
from vmoe.report.plots import label_load
from vmoe.report.run_files import RunFiles
from vmoe.report.tasks import IMAGES, Task

from .blocks import Absent, Block, ByLayer, Shown
from .reasons import counted, why

MOST_MAPPED = 40  # rows of a map
MOST_LISTED = 6  # labels of an expert
LONGEST = 24  # characters of a label in a list
LEAST_PAIRS = 30  # of a label, so that its shares are more than chance


def labels(files: RunFiles) -> list[Block]:
    task, counts = files.task or IMAGES, files.counts
    if counts is None:
        return [Absent(f"Not known which {task.labels} experts serve: {why(files, COUNTS)}")]
    if not counts.labels:
        return [Absent(f"Not known which {task.labels} experts serve: {files.folder / COUNTS} holds none.")]
    blocks: list[Block] = []
    if task.label_map:
        blocks.append(_map(files, counts, task))
    if not task.label_map or len(counts.labels) > MOST_MAPPED:
        blocks.append(_lists(files, counts, task))
    return blocks


def _map(files: RunFiles, counts: Counts, task: Task) -> ByLayer:
    title = f"Load of experts by {task.label}"
    of = max(int(layer.pairs_by_label.any(1).sum()) for layer in counts.layers.values())
    some = f" The {MOST_MAPPED} most uneven of {of:,} {task.labels} are shown." if of > MOST_MAPPED else ""
    caption = (
        f"Of the active pairs of each {task.label}, the share that each expert takes; a row sums to 100 % "
        f"({counted(files)}).{some} Rows stand by their favourite expert. Equal rows: experts do not tell "
        f"{task.labels} apart. Bright cells: experts for some {task.labels}."
    )
    shown = []
    for name, layer in counts.layers.items():
        seen = np.flatnonzero(layer.pairs_by_label.any(1))
        draw = partial(
            label_load, layer.label_load[seen].tolist(), [counts.labels[label] for label in seen], most=MOST_MAPPED
        )
        shown.append(Shown(name, draw))
    return ByLayer("label_load", title, shown, caption)


def _lists(files: RunFiles, counts: Counts, task: Task) -> ByLayer:
    caption = (
        f"Of each expert the {task.labels} with most active pairs, and those that are most its own: of whose pairs it "
        f"takes the largest share, among {task.labels} with at least {LEAST_PAIRS} ({counted(files)}). Beside each: "
        f"the pairs that the expert takes, and their share of all pairs of the {task.label}."
    )
    names = [name[:LONGEST] if task.label_map else as_a_label(name, LONGEST) for name in counts.labels]
    shown = [Shown(name, None, _cards(layer, names)) for name, layer in counts.layers.items()]
    return ByLayer("labels", "What each expert serves most", shown, caption)


def _cards(layer: LayerCounts, names: list[str]) -> str:
    share_CE, load_E = layer.label_load, layer.pairs / max(int(layer.pairs.sum()), 1)
    enough_C = layer.pairs_by_label.sum(1) >= LEAST_PAIRS
    cards = []
    for expert, load in enumerate(load_E.tolist()):
        often = np.argsort(-layer.pairs_by_label[:, expert], kind="stable")[:MOST_LISTED]
        own = np.argsort(-np.where(enough_C, share_CE[:, expert], -1), kind="stable")[:MOST_LISTED]
        own = own[enough_C[own]]
        lists = "".join(
            f"<h4>{heading}</h4><ol>{''.join(_entries(layer, share_CE, expert, found, names))}</ol>"
            for heading, found in (("most often", often), ("most its own", own))
            if load
        )
        cards.append(f"<li><h3>Expert {expert}: {load:.1%} of the pairs</h3>{lists}</li>")
    return f'<ol class="cards">{"".join(cards)}</ol>'


def _entries(
    layer: LayerCounts, share_CE: np.ndarray, expert: int, found: np.ndarray, names: list[str]
) -> Iterator[str]:
    for label in found.tolist():
        if pairs := int(layer.pairs_by_label[label, expert]):
            count = f'<span class="count">{pairs:,} · {share_CE[label, expert]:.0%}</span>'
            yield f"<li><code>{escape(names[label])}</code>{count}</li>"
