"""Figures drawn, on all cores: each once, for the page as SVG, and as PNG beside it."""

from __future__ import annotations

import gc
import multiprocessing
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vmoe.report.page import escape
from vmoe.report.plots import save_png, themed_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FIGURES_A_PROCESS = 8  # at least: with fewer, starting it takes longer than drawing
NARROWEST, WIDEST = 7, 9  # inches of figures, for which the style has classes


@dataclass(frozen=True)
class Drawing:
    """A figure to be drawn. title: for those who do not see it."""

    title: str
    draw: Callable[[], Axes]


@dataclass(frozen=True)
class Drawn:
    """html: the figure, or why there is none. pictures: the names of its PNGs."""

    html: str
    pictures: tuple[str, ...] = ()


Job = Callable[[], Drawn]
Drawings = Mapping[str, Drawn]


def job(drawing: Drawing, name: str, folder: Path) -> Job:
    """Draw it, and save NAME.png in the folder; where the values are none that can be drawn, say so in its place."""

    def run() -> Drawn:
        try:
            ax = drawing.draw()
        except ValueError as error:
            return Drawn(f'<p class="absent">{escape(f"This figure cannot be drawn: {error}.")}</p>')
        svg = themed_svg(ax)
        width = min(max(round(ax.figure.figure.get_figwidth()), NARROWEST), WIDEST)
        ax.figure.figure.set_layout_engine(None)  # it stays as it is now: to lay it out takes as long as to draw it
        save_png(ax, folder / f"{name}.png")
        shown = f'<div class="plot in{width}" role="img" aria-label="{escape(drawing.title)}">{svg}</div>'
        return Drawn(shown, (f"{name}.png",))

    return run


def run_all(jobs: Mapping[str, Job]) -> Drawings:
    """What each of the jobs gives, by its name. Many jobs run in processes that are copies of this one."""
    processes = min(len(os.sched_getaffinity(0)), len(jobs) // FIGURES_A_PROCESS)
    if processes < 2:
        return {name: run() for name, run in jobs.items()}
    forked = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(processes, forked, initializer=_start, initargs=(jobs,)) as pool:
        return dict(zip(jobs, pool.map(_run, jobs), strict=True))


_JOBS: dict[str, Job] = {}  # of a process that `run_all` has started


def _start(jobs: Mapping[str, Job]) -> None:
    gc.freeze()  # what is shared with the first process is not written to, and so not copied
    _JOBS.update(jobs)


def _run(name: str) -> Drawn:
    return _JOBS[name]()
