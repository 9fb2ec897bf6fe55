"""Labelled points: what is drawn, and that labels can be read."""

import math

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib.collections import PathCollection

from vmoe.report.plots import score_against


def test_a_labelled_point_each_with_its_spread_and_mark():
    ax = score_against(
        [1, 2, 3], [60, 70, 65], ["a", "b", "c"], spread=[0.5, 0.0, math.nan], highlighted=[False, True, False]
    )
    points = [dots for dots in ax.collections if isinstance(dots, PathCollection)]
    assert [tuple(dots.get_offsets()[0]) for dots in points] == [(1, 60), (2, 70), (3, 65)]
    assert [text.get_text() for text in ax.texts] == ["a", "b", "c"]
    assert [text.get_fontweight() for text in ax.texts] == ["normal", "bold", "normal"]
    (bar,) = ax.containers
    (segment,) = bar.lines[2][0].get_segments()
    assert segment.tolist() == [[1, 59.5], [1, 60.5]]


def extents(ax):
    ax.figure.draw_without_rendering()
    return [text.get_window_extent() for text in ax.texts]


RANDOM = np.random.default_rng(0).random((2, 16))
CROWDED = {
    "alike": (1 + 0.02 * RANDOM[0], 60 + 0.2 * RANDOM[1], [f"tiny-routing-free-seed-{i}" for i in range(16)]),
    "one above the other": (np.ones(10), np.arange(10), [f"run {i}" for i in range(10)]),
    "the same": (np.ones(6), np.ones(6), [f"seed {i}" for i in range(6)]),
    "long": (np.arange(4.0), np.zeros(4), [f"{i} a very long name of a run " * 9 for i in range(4)]),
}


@pytest.mark.parametrize("case", CROWDED)
def test_labels_lie_inside_and_apart(case):
    ax = score_against(*CROWDED[case], xlabel="GFLOPs", ylabel="top-1 (%)")
    boxes, frame = extents(ax), ax.get_window_extent()
    for i, box in enumerate(boxes):
        assert frame.x0 <= box.x0 < box.x1 <= frame.x1
        assert frame.y0 <= box.y0 < box.y1 <= frame.y1
        assert not any(box.overlaps(other) for other in boxes[:i])
        assert not any(box.contains(*pixel) for pixel in ax.transData.transform(np.stack(CROWDED[case][:2], axis=1)))


def test_labels_keep_off_the_bars_of_the_spread():
    """They would stand above their points if there were none."""
    values, scores, spread = [1.0, 2.0, 3.0], [60.0, 61.0, 62.0], [0.5, 0.5, 0.5]
    ax = score_against(values, scores, ["a label", "another label", "a third"], spread=spread)
    for box, x, y in zip(extents(ax), values, scores, strict=True):
        bar = [ax.transData.transform((x, y + part)) for part in np.linspace(-0.5, 0.5, 41)]
        assert not any(box.contains(*pixel) for pixel in bar)


def test_a_line_leads_to_a_label_that_is_far_away():
    assert len(score_against([1], [60], ["near"]).collections) == 1
    ax = score_against(*CROWDED["the same"])
    assert len(ax.collections) > 6


@pytest.mark.parametrize("count", [1, 2])
def test_an_axis_shows_at_least_so_much(count):
    low, high = score_against([1, 2][:count], [60.0, 60.01][:count], ["a", "b"][:count], least_span=1.0).get_ylim()
    assert high - low == pytest.approx(1.0)
    assert low < 60 < high


def test_names_that_are_not_markup():
    ax = score_against([1], [2], ["$x_1$\n\u202e" + "y" * 90])
    assert ax.texts[0].get_text().startswith("$x_1$ ⟨U+202E⟩y")
    assert len(ax.texts[0].get_text()) == 48
    assert not ax.texts[0].get_parse_math()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], [], []), r"values has shape \(0,\)"),
        (([1], [1, 2], ["a"]), "scores has 2 entries; allowed: 1"),
        (([1], [1], []), "labels has 0 entries; allowed: 1"),
        (([1], [math.nan], ["a"]), "hold what is not finite"),
    ],
)
def test_what_cannot_be_drawn(arguments, message):
    with pytest.raises(ValueError, match=message):
        score_against(*arguments)
    with pytest.raises(ValueError, match="spread has 2 entries; allowed: 1"):
        score_against([1], [1], ["a"], spread=[1, 2])


def test_costs_that_are_nearly_equal_look_so():
    left, right = score_against([34.95, 35.02], [1.0, 2.0], ["a", "b"]).get_xlim()
    assert right - left == pytest.approx(0.05 * 35.02)
    left, right = score_against([30.0, 40.0], [1.0, 2.0], ["a", "b"]).get_xlim()
    assert right - left == pytest.approx(1.24 * 10)
