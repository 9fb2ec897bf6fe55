"""The figures of a comparison, section by section, of the rows of one task."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

from matplotlib.axes import Axes

from vmoe.report import plots
from vmoe.report.run_page.blocks import Absent, Block, Plot, Section, Words
from vmoe.report.runs import Layer
from vmoe.report.seeds import Row
from vmoe.report.tasks import Task

from .history import History
from .lines import draw_by_layer, draw_curves, experts_per_token, spans_factors
from .scores import Cost, costs_of, draw_scores, left_out

MOST_ROWS = 12  # in a figure; more lines cannot be told apart
SEEDS = "Points and lines are means over the seeds of a row, bars and bands a sample standard deviation around them."


def sections_of(rows: Sequence[Row], histories: Sequence[History], task: Task, *, prefix: str = "") -> list[Section]:
    """Score against cost, training, routing. prefix: of titles, where a page has several tasks."""
    shown, drawn = rows[:MOST_ROWS], histories[:MOST_ROWS]
    key = f"{task.name}-" if prefix else ""
    seeds = [Words(SEEDS)] if any(len(row.runs) > 1 for row in rows) else []
    told: list[Block] = []
    if left := rows[MOST_ROWS:]:
        named = ", ".join(row.label for row in left)
        told = [Absent(f"Of {len(rows)} rows the first {MOST_ROWS} are drawn; without lines and maps: {named}.")]
    found: list[tuple[str, str, list[Block]]] = [
        ("score", "score against cost", [*seeds, *(_score(rows, task, cost, key) for cost in costs_of(task))]),
        ("training", "training", [*seeds, *told, *_training(shown, drawn, task, key)]),
        ("routing", "routing", [*told, *_routing(shown, key)]),
    ]
    return [
        Section(key + name, _capital(f"{prefix}: {title}" if prefix else title), blocks)
        for name, title, blocks in found
    ]


def _score(rows: Sequence[Row], task: Task, cost: Cost, key: str) -> Block:
    missing = left_out(rows, task, cost)
    if len(missing) == len(rows):
        return Absent(f"{cost.title}: no run says any.")
    shown = [row for row in rows if row.label not in missing]
    caption = ["Orange diamonds: without experts."] if any(row.first.routing is None for row in shown) else []
    if missing:
        caption.append(f"Not known of: {', '.join(missing)}.")
    draw = partial(draw_scores, rows, task, cost)
    return Plot(f"{key}score-{cost.key}", cost.title, draw, " ".join(caption))


def _training(rows: Sequence[Row], histories: Sequence[History], task: Task, key: str) -> list[Block]:
    scores = [history.evaluated(task.score) for history in histories]
    losses = [history.trained("loss") for history in histories]
    coefficients = [history.trained("balance_coefficient", log=True) for history in histories]
    wanted = (
        ("loss", "Training loss", "loss of training batches", losses, spans_factors(losses)),
        ("curve", "Score", task.axis, scores, spans_factors(scores)),
        (
            "entropy",
            "Routing entropy",
            "routing entropy",
            [one.observed("routing.entropy") for one in histories],
            False,
        ),
        ("density", "Density", "density ρ", [one.observed("routing.density") for one in histories], False),
        ("coefficient", "Coefficient λ", "coefficient λ (log scale)", coefficients, True),
    )
    figures: list[Block] = []
    absent: list[Block] = []
    for name, title, ylabel, lines, log in wanted:
        if any(line.steps for line in lines):
            draw = partial(draw_curves, rows, lines, ylabel=ylabel, log=log)
            figures.append(Plot(f"{key}training-{name}", title, draw, CAPTIONS[name]))
        else:
            absent.append(Absent(f"{title}: no run has logged any."))
    return [*figures, *absent]


CAPTIONS = {
    "loss": "Means of neighbouring log lines where there are many.",
    "curve": "Of each evaluation during training.",
    "entropy": "Of the load, over ln E, mean over the MoE layers: 1 is perfectly even.",
    "density": "Active pairs of token and expert over all pairs, mean over the MoE layers.",
    "coefficient": "By which gates with a controller steer their density; a mean is that of logarithms.",
}


def _routing(rows: Sequence[Row], key: str) -> list[Block]:
    routed = [row for row in rows if row.first.routing is not None]
    if not routed:
        return [Absent("None of these has experts whose routing was counted.")]
    blocks: list[Block] = []
    told: list[Block] = []
    if len(routed) < len(rows):
        named = ", ".join(row.label for row in rows if row not in routed)
        told.append(Absent(f"Without experts, or evaluated without counting them: {named}."))
    entropy = partial(draw_by_layer, rows, lambda layer: layer.figures.entropy, ylabel="routing entropy")
    meaning = "Entropy of each MoE layer's load at the last evaluation, over ln E: 1 is perfectly even."
    blocks.append(Plot(f"{key}routing-entropy", "Routing entropy by layer", entropy, meaning))
    labels, shares = experts_per_token(routed)
    if labels:
        meaning = "Share of tokens with so many active experts, over all MoE layers and seeds of a row."
        draw = partial(_draw_experts_per_token, shares, labels)
        blocks.append(Plot(f"{key}routing-experts-per-token", "Experts per token", draw, meaning))
    loads = [_load(row, f"{key}routing-load-{number}") for number, row in enumerate(routed, start=1)]
    meaning = "Load: the share of each layer's pairs that each expert takes; each map has colours of its own scale."
    if any(len(row.runs) > 1 for row in routed):
        meaning += " Of one seed a row, since experts have other numbers in other seeds."
    return [*told, *blocks, Words(meaning), *loads]


def _draw_experts_per_token(shares: Sequence[Sequence[float]], labels: Sequence[str]) -> Axes:
    ax = plots.experts_per_token(shares, labels)
    ax.set_ylabel("")
    return ax


def _load(row: Row, key: str) -> Block:
    layers = _layers(row)
    if len({len(layer.load) for layer in layers}) > 1:
        return Absent(f"{row.label}: its layers differ in their number of experts; vmoe report shows them one by one.")
    draw = partial(plots.expert_load, [layer.load for layer in layers], [layer.layer for layer in layers])
    seed = f"Seed {row.first.seed}." if len(row.runs) > 1 else ""
    name = re.sub(r"[^A-Za-z0-9.]+", "_", row.label)[:60].strip("._")  # which every file system takes
    return Plot(f"{key}-{name}", f"Load: {row.label}", draw, seed)


def _layers(row: Row) -> Sequence[Layer]:
    """Of the run that stands for the row."""
    return () if row.first.routing is None else row.first.routing.layers


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
