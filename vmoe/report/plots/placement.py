"""Where labels of points stand: beside their points, and covering neither these nor each other. All in pixels.

Shapes: P points with a label each, D points of what is drawn, C places to choose from, S samples of a line.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GAPS = (9, 15, 24, 36, 52, 72, 96, 124)  # between points and their labels
MAX_GAP = 15  # that is clear without a line
ANGLES = np.deg2rad([90, 270, 135, 315, 45, 225, 180, 0])
AROUND = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)
ROOM, RADIUS = 2, 4  # around labels, of points
Points = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Place:
    """Of a label. offset (2,): of its middle from its point. line: whether it needs one that leads to its point."""

    offset: Points
    line: bool


def places(points_P2: Points, halves_P2: Points, drawn_D2: Points, frame_22: Points, scale: float) -> Iterator[Place]:
    """A place for each label in turn, near its point, where it covers least of what is drawn and placed before it.

    halves_P2: half of each label's width and height. frame_22: two corners, between which labels stand. scale: pixels
    of the unit of `GAPS`.
    """
    taken: list[Points] = []  # boxes: left, bottom, right, top
    gaps_C = np.repeat(GAPS, 2 * len(ANGLES))
    marks_P4 = np.concatenate([points_P2 - RADIUS * scale, points_P2 + RADIUS * scale], axis=1)
    for point, half in zip(points_P2, halves_P2, strict=True):
        low, high = frame_22[0] + half + ROOM + 1, frame_22[1] - half - ROOM - 1
        free = (point + AROUND * (half + gap * scale) for gap in GAPS)
        inside = np.maximum(low, high)
        middles_C2 = np.concatenate([choice for spots in free for choice in (spots, spots.clip(low, inside))])
        boxes_C4 = np.concatenate([middles_C2 - half - ROOM, middles_C2 + half + ROOM], axis=1)
        lines_CS2 = _line(point, middles_C2)
        taken_T4 = np.array(taken).reshape(-1, 4)
        costs_C = (
            _covered(boxes_C4, np.concatenate([drawn_D2, drawn_D2], axis=1))
            + 10 * _crossed(lines_CS2, taken_T4)
            + 30 * _covered(boxes_C4, marks_P4)
            + 100 * _covered(boxes_C4, taken_T4)
            + 1000 * ((boxes_C4[:, :2] < frame_22[0]) | (boxes_C4[:, 2:] > frame_22[1])).any(axis=1)
        )
        best = int(costs_C.argmin())  # near places come first: of equal ones the first is taken
        taken.append(boxes_C4[best])
        distances_P = np.hypot(*(np.abs(points_P2 - middles_C2[best]) - half).clip(min=0).T)
        own = np.hypot(*(np.abs(point - middles_C2[best]) - half).clip(min=0))
        line = bool(gaps_C[best] > MAX_GAP or own > distances_P.min() + 1)
        if line:
            drawn_D2 = np.concatenate([drawn_D2, lines_CS2[best]])
        yield Place(middles_C2[best] - point, line)


def _line(point: Points, middles_C2: Points) -> Points:
    """(C, S, 2) From the point to each middle."""
    share = np.linspace(0, 1, 24)[:, None]
    return point * (1 - share) + middles_C2[:, None] * share


def _covered(boxes_C4: Points, others_D4: Points) -> NDArray[np.int64]:
    """(C,) How many of the other boxes, which may be points, each box covers some of."""
    left, bottom, right, top = boxes_C4.T[:, :, None]
    other_left, other_bottom, other_right, other_top = others_D4.T[:, None]
    apart = (other_right <= left) | (other_left >= right) | (other_top <= bottom) | (other_bottom >= top)
    return np.sum(~apart, axis=1)


def _crossed(lines_CS2: Points, boxes_T4: Points) -> NDArray[np.int64]:
    """(C,) How many of the boxes each line crosses."""
    samples = lines_CS2[:, :, None]
    inside_CST = np.all((samples > boxes_T4[:, :2]) & (samples < boxes_T4[:, 2:]), axis=-1)
    return np.sum(np.any(inside_CST, axis=1), axis=1)
