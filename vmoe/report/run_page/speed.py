"""How fast training went: units a second, what of the time went into waiting for data, and memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmoe.report.metrics import METRICS, Metrics, Moment
from vmoe.report.plots import curves
from vmoe.report.run_files import RunFiles

from .blocks import Absent, Block, Plot
from .reasons import why
from .series import mean_line
from .training import STEP

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WAITED, WAITED_MOST = "data_wait", "data_wait_max"
MEMORY = {"gpu_peak_gib": "Tensors on a GPU", "resident_gib": "A process"}
SAME = 0.01  # of the time: processes that wait so alike are one line
LITTLE = 0.05  # of the time: what the axis reaches to at least, so that less looks like little


def speed(files: RunFiles) -> list[Block]:
    metrics = files.metrics or Metrics()
    return [_rate(files, metrics), *_waiting(metrics)]


def _rate(files: RunFiles, metrics: Metrics) -> Block:
    task = files.task
    line = mean_line(metrics.train, task.speed.key) if task else None
    if task is None or line is None or not line.steps:
        return Absent(f"No speed over training: {why(files, METRICS)}")
    words = f"Of training, over all processes; evaluations and checkpoints aside.{_memory(metrics.train)}"
    series = {"": (line.steps, line.values)}
    return Plot("speed", "Speed", lambda: curves(series, xlabel=STEP, ylabel=task.speed.header), words)


def _memory(moments: tuple[Moment, ...]) -> str:
    most = {
        name: max((one.values[key] for one in moments if key in one.values), default=None)
        for key, name in MEMORY.items()
    }
    return "".join(f" {name} took {size:.2f} GiB at most." for name, size in most.items() if size is not None)


def _waiting(metrics: Metrics) -> list[Block]:
    """Nothing in logs from before they said it."""
    mean, most = mean_line(metrics.train, WAITED), mean_line(metrics.train, WAITED_MOST)
    if not mean.steps:
        return []
    lines = {"": (mean.steps, mean.values)}
    if max(abs(one - other) for one, other in zip(mean.values, most.values, strict=False)) > SAME:
        lines = {"mean of the processes": lines[""], "the one that waits most": (most.steps, most.values)}
    caption = (
        "Share of the time that processes stood still until the next batch was loaded. Near 0, the model decides the "
        "speed; what is far above is lost to loading. docs/throughput.md says what to change then."
    )

    def draw() -> Axes:
        axes = curves(lines, xlabel=STEP, ylabel="share of the time")
        axes.set_ylim(0, max(LITTLE, axes.get_ylim()[1]))
        return axes

    return [Plot("data_wait", "Waiting for data", draw, caption)]
