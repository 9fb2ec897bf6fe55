"""How training went: loss, score, learning rate."""

from __future__ import annotations

from vmoe.report.metrics import METRICS, Metrics
from vmoe.report.plots import curves
from vmoe.report.run_files import RunFiles

from .blocks import Absent, Block, Plot
from .reasons import why
from .series import Line, last_line, mean_line

STEP = "optimizer step"
MARKED = 60  # points of a line that are not too many to mark
WIDE_RANGE = 20.0  # of a score: from there on its axis is logarithmic


def training(files: RunFiles) -> list[Block]:
    metrics = files.metrics or Metrics()
    return [_loss(files, metrics), _score(files, metrics), _rate(files, metrics)]


def _loss(files: RunFiles, metrics: Metrics) -> Block:
    train, evaluated = mean_line(metrics.train, "loss"), mean_line(metrics.evaluations, "loss")
    series = {"training": train, "evaluation": evaluated}
    lines = {name: (line.steps, line.values) for name, line in series.items() if line.steps}
    if not lines:
        return Absent(f"No loss over training: {why(files, METRICS)}")
    each = f"; a point is the mean of up to {train.moments} lines of the log" if train.moments > 1 else ""
    caption = (
        f"Mean cross-entropy in nats{each}. Training's has augmentation, label smoothing and dropout in it where the "
        "config asks for them, and the model still as it was; so it may lie above the evaluation's. An evaluation that "
        "rises while training falls is overfitting."
    )
    return Plot("loss", "Loss", lambda: curves(lines, xlabel=STEP, ylabel="loss (nats)"), caption)


def _score(files: RunFiles, metrics: Metrics) -> Block:
    task = files.task
    line = mean_line(metrics.evaluations, task.score) if task else Line([], [], 1)
    if task is None or not line.steps:
        return Absent(f"No score of evaluations over training: {why(files, METRICS)}")
    log = min(line.values) > 0 and max(line.values) > WIDE_RANGE * min(line.values)
    best = (min if task.quality[0].lower_is_better else max)(zip(line.values, line.steps, strict=True))
    each = f"each of the {len(line.steps):,} evaluations" if len(line.steps) > 1 else "the one evaluation"
    caption = (
        f"Of {each}, on data that training does not see. The best is "
        f"{best[0]:.{task.quality[0].digits}f}, at step {best[1]:,.0f}.{' The axis is logarithmic.' if log else ''}"
    )
    return Plot(
        "score",
        "Score of evaluations",
        lambda: curves(
            {"": (line.steps, line.values)},
            xlabel=STEP,
            ylabel=task.axis,
            log=log,
            markers=len(line.steps) <= MARKED,
        ),
        caption,
    )


def _rate(files: RunFiles, metrics: Metrics) -> Block:
    line = last_line(metrics.train, "lr")
    if not line.steps:
        return Absent(f"No learning rate over training: {why(files, METRICS)}")
    caption = "The largest of the optimizer's groups, as the schedule set it."
    return Plot(
        "learning_rate",
        "Learning rate",
        lambda: curves({"": (line.steps, line.values)}, xlabel=STEP, ylabel="learning rate"),
        caption,
    )
