"""Plots of lines and of routing over time: what they show of which values, gaps, and what they refuse."""

import math
from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from vmoe.report.plots import band, curves, dynamics, load_over_time, stability
from vmoe.report.plots.canvas import power_of_ten, readable
from vmoe.report.plots.lines import MAX_SERIES

NAN = math.nan


def texts(items):
    return [item.get_text() for item in items]


def legend(ax):
    return texts(ax.get_legend().get_texts())


def drawn(line):
    """The finite values of a line."""
    return [(x, y) for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True) if math.isfinite(y)]


def test_a_line_for_each_series_with_its_label():
    ax = curves(
        {"train": ([1, 2, 3], [3.0, 2.0, 1.0]), "_$x$": ([1, 3], [2.5, 2.0])}, title="a", xlabel="b", ylabel="c"
    )
    assert [drawn(line) for line in ax.lines] == [[(1, 3.0), (2, 2.0), (3, 1.0)], [(1, 2.5), (3, 2.0)]]
    assert legend(ax) == ["train", "_$x$"]
    assert not any(text.get_parse_math() for text in ax.get_legend().get_texts())
    assert (ax.get_title(), ax.get_xlabel(), ax.get_ylabel()) == ("a", "b", "c")


def test_series_are_apart_without_their_colours_and_without_their_dashes():
    ax = curves({str(i): ([0, 1], [i, i]) for i in range(12)})
    looks = [(line.get_color(), line._dash_pattern[1] and tuple(line._dash_pattern[1])) for line in ax.lines]
    assert len(set(looks)) == 12
    for one, other in pairwise(looks):
        assert one[0] != other[0]
        assert one[1] != other[1]


@pytest.mark.parametrize(("count", "found"), [(0, 0), (MAX_SERIES + 1, MAX_SERIES + 1)])
def test_no_series_and_too_many(count, found):
    with pytest.raises(ValueError, match=f"series has {found} entries; allowed: 1 to {MAX_SERIES}"):
        curves({str(i): ([0, 1], [i, i]) for i in range(count)})


def test_gaps_stay_gaps_and_a_point_alone_is_marked():
    ax = curves({"loss": ([1, 2, 3, 4, 5], [1.0, NAN, 2.0, None, math.inf])})
    (line,) = ax.lines
    assert drawn(line) == [(1, 1.0), (3, 2.0)]
    assert line.get_markevery() == [0, 2]
    (line,) = curves({"loss": ([1, 2, 3], [1.0, 2.0, 3.0])}).lines
    assert line.get_marker() == "None"
    (line,) = curves({"loss": ([1, 2, 3], [1.0, 2.0, 3.0])}, markers=True).lines
    assert line.get_markevery() == [0, 1, 2]


def test_a_logarithmic_axis_has_no_place_for_what_is_not_positive():
    ax = curves({"loss": ([1, 2, 3], [100.0, 0.0, 0.001])}, log=True)
    assert ax.get_yscale() == "log"
    assert drawn(ax.lines[0]) == [(1, 100.0), (3, 0.001)]


def test_where_nothing_is_finite_the_plot_says_so():
    for log, value in [(False, NAN), (True, -1.0)]:
        ax = curves({"loss": ([1, 2], [value, value])}, log=log)
        assert texts(ax.texts) == ["no finite value"]


def test_series_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match=r"series 'a' has shapes x \(2,\), y \(3,\)"):
        curves({"a": ([1, 2], [1, 2, 3])})
    with pytest.raises(ValueError, match="series 'a' has 2 parts; allowed: x, mean, low, high"):
        band({"a": ([1, 2], [1, 2])})


def test_a_band_lies_around_its_mean():
    ax = band({"3 seeds": ([1, 2], [5.0, 6.0], [4.0, 5.5], [7.0, 6.5]), "1 seed": ([1, 2], [1, 1], [1, 1], [1, 1])})
    assert drawn(ax.lines[0]) == [(1, 5.0), (2, 6.0)]
    corners = {tuple(corner) for corner in ax.collections[0].get_paths()[0].vertices}
    assert corners == {(1, 4.0), (2, 5.5), (1, 7.0), (2, 6.5)}
    assert legend(ax) == ["3 seeds", "1 seed"]


def test_density_at_the_left_and_the_coefficient_at_a_logarithmic_right():
    steps = [100, 200, 300]
    ax = dynamics(steps, [0.5, 0.3, 0.25], [1e-9, 1e-7, 0.0], target_density=0.25, entropy=[0.9, NAN, 0.8], title="rf")
    right = next(other for other in ax.figure.axes if other is not ax)
    assert (ax.get_yscale(), right.get_yscale()) == ("linear", "log")
    assert (ax.get_ylabel(), right.get_ylabel()) == ("density ρ, entropy", "coefficient λ (log scale)")
    assert drawn(ax.lines[0]) == [(100, 0.5), (200, 0.3), (300, 0.25)]
    assert drawn(right.lines[0]) == [(100, 1e-9), (200, 1e-7)]
    assert legend(ax) == ["density ρ", "target ρ = 0.25", "routing entropy", "coefficient λ (right)"]
    assert ax.get_ylim() == (0, 1)


@pytest.mark.parametrize("coefficient", [None, [0.0, NAN]])
def test_without_a_coefficient_there_is_no_right_axis(coefficient):
    ax = dynamics([1, 2], [0.5, 0.25], coefficient)
    assert ax.figure.axes == [ax]
    assert legend(ax) == ["density ρ"]


def test_dynamics_needs_a_value_a_step():
    with pytest.raises(ValueError, match="coefficient has 1 entries; allowed: 2, one a step"):
        dynamics([1, 2], [0.5, 0.5], [1.0])
    with pytest.raises(ValueError, match=r"steps has shape \(0,\)"):
        dynamics([], [])


def test_load_over_time_fills_the_steps_since_the_moment_before():
    ax = load_over_time([[0.75, 0.25], [0.5, 0.5], [0.0, 1.0]], [10, 20, 30])
    assert ax.images[0].get_extent() == [0, 30, 1.5, -0.5]
    assert ax.images[0].get_array().tolist() == [[0.75, 0.5, 0.0], [0.25, 0.5, 1.0]]


def test_uneven_steps_take_uneven_room():
    """1 of 4 steps goes to the first moment, which is 150 of 600 columns."""
    ax = load_over_time([[1.0, 0.0], [0.0, 1.0]], [1, 4])
    first_expert = ax.images[0].get_array()[0]
    assert ax.images[0].get_extent()[:2] == [0, 4]
    assert (first_expert[:150].min(), first_expert[150:].max()) == (1.0, 0.0)


@pytest.mark.parametrize("step", [0, 1, 100])
def test_one_moment_is_a_picture_too(step):
    left, right, *_ = load_over_time([[0.5, 0.5]], [step]).images[0].get_extent()
    assert left < right == step


@pytest.mark.parametrize("steps", [[2, 1], [1, 1], [1, NAN]])
def test_steps_ascend(steps):
    with pytest.raises(ValueError, match="allowed: finite, each larger than the one before"):
        load_over_time([[0.5, 0.5]] * 2, steps)


def test_stability_is_in_percent_by_layer():
    ax = stability([100, 200, 300], {"blocks.1.mlp": [NAN, 0.5, 0.25], "blocks.3.mlp": [None, 0.1, 0.0]})
    assert [drawn(line) for line in ax.lines] == [[(200, 50.0), (300, 25.0)], [(200, 10.0), (300, 0.0)]]
    assert legend(ax) == ["blocks.1.mlp", "blocks.3.mlp"]
    assert ax.get_ylim()[0] == 0
    with pytest.raises(ValueError, match=r"changed\['a'\] has 1 entries; allowed: 2"):
        stability([1, 2], {"a": [0.5]})


def test_it_draws_where_it_is_told():
    ax = curves({"a": ([1], [1])}).figure.add_subplot()
    assert curves({"a": ([1], [1])}, ax) is ax
    assert dynamics([1], [0.5], [1.0], ax) is ax
    assert load_over_time([[1.0]], [1], ax) is ax
    assert stability([1], {"a": [0.5]}, ax) is ax


def test_numbers_of_a_logarithmic_axis_read_without_markup():
    values = (1e-10, 5e-7, 0.001, 0.02, 3, 1e4, 2.5e6)
    assert [power_of_ten(value) for value in values] == ["10⁻¹⁰", "5·10⁻⁷", "0.001", "0.02", "3", "10000", "2.5·10⁶"]


def test_long_and_strange_names_become_one_line_that_can_be_read():
    assert readable("a\nb  c") == "a b c"
    assert readable("blocks.11.mlp" * 9, 11) == "block…1.mlp"
    assert readable("\x00\u202eab") == "⟨U+0000⟩⟨U+202E⟩ab"
    assert len(readable("x" * 1000)) == 40


def test_time_in_steps_is_labelled_by_thousands():
    ax = curves({"a": (np.arange(1, 20_001, 100), np.ones(200))})
    ax.figure.draw_without_rendering()
    assert {"0", "10k", "20k"} <= set(texts(ax.get_xticklabels()))
