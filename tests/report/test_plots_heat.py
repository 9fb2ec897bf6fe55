"""Heat maps and their kin, layer by layer, label by label, position by position: cells, order, scales, refusals."""

import math

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from vmoe.report.plots import co_activation, entropy_by_layer, expert_load, experts_per_token, label_load, position_load
from vmoe.report.plots.canvas import ON_DARK, ON_LIGHT

LAYERS = ["blocks.1.mlp", "blocks.3.mlp"]


def texts(items):
    return [item.get_text() for item in items]


def rows(ax):
    return texts(ax.yaxis.get_ticklabels())


def at_the_right(ax):
    (right,) = ax.child_axes
    return texts(right.yaxis.get_ticklabels())


def test_entropy_stands_on_its_bar_of_possible_values():
    ax = entropy_by_layer([0.75, 1.0], [0.5, 0.25], LAYERS, title="even?")
    assert [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in ax.patches] == [(0.5, 1.0), (0.25, 1.0)]
    assert ax.lines[0].get_xydata().tolist() == [[0.75, 0], [1.0, 1]]
    assert rows(ax) == LAYERS
    assert ax.yaxis_inverted(), "the first layer is on top"
    assert at_the_right(ax) == ["0.750 (≥ 0.50)", "1.000 (≥ 0.25)"]
    assert ax.get_xlim() == (0, 1)


def test_an_entropy_that_is_not_known_is_a_dash():
    assert at_the_right(entropy_by_layer([math.nan], [math.nan], ["a"])) == ["–"]
    assert at_the_right(expert_load([[1.0, 0.0]], ["a"], entropy=[math.nan])) == ["–"]


def test_numbers_of_experts_begin_with_none_and_their_mean_stands_at_the_right():
    """0 · 0.1 + 1 · 0.5 + 2 · 0.4 = 1.3."""
    ax = experts_per_token([[0.1, 0.5, 0.4], [0.0, 0.0, 1.0]], LAYERS)
    assert ax.images[0].get_array().tolist() == [[0.1, 0.5, 0.4], [0.0, 0.0, 1.0]]
    assert texts(ax.xaxis.get_ticklabels()) == ["0", "1", "2"]
    assert at_the_right(ax) == ["1.30", "2.00"]
    assert texts(ax.texts) == ["10.0", "50.0", "40.0", "0.0", "0.0", "100.0"]


def test_pairs_set_the_scale_of_co_activation():
    ax = co_activation([[0.5, 0.2], [0.2, 0.3]])
    assert ax.images[0].get_clim() == (0, 0.2)
    assert ax.images[0].colorbar.extend == "max", "the diagonal is beyond it"
    assert ax.get_aspect() == 1
    assert co_activation([[0.8, 0.1], [0.1, 0.3]]).images[0].get_clim() == (0, 0.2), "a quarter of 0.8"
    alone = co_activation([[0.5]])
    assert (alone.images[0].get_clim(), alone.images[0].colorbar.extend) == ((0, 0.5), "neither")
    with pytest.raises(ValueError, match=r"share_EE has shape \(1, 2\); allowed: as many rows as columns"):
        co_activation([[0.5, 0.5]])


def test_labels_stand_by_their_favourite_expert():
    """Those of expert 0 first, the stronger one before the weaker; a label without a pair last."""
    load = [[0.4, 0.6], [0.7, 0.3], [0.0, 0.0], [0.9, 0.1]]
    ax = label_load(load, ["cat", "dog", "never", "emu"])
    assert rows(ax) == ["emu", "dog", "cat", "never"]
    assert ax.images[0].get_array().tolist() == [[0.9, 0.1], [0.7, 0.3], [0.4, 0.6], [0.0, 0.0]]
    assert ax.get_ylabel() == "label"
    assert ax.images[0].get_clim() == (0, 1), "twice the fair share of 1/2"


def test_of_many_labels_the_most_uneven_are_shown_and_it_is_said():
    load = [[0.5, 0.5], [0.9, 0.1], [0.6, 0.4], [0.2, 0.8]]
    ax = label_load(load, ["a", "b", "c", "d"], most=2)
    assert rows(ax) == ["b", "d"]
    assert ax.get_ylabel() == "label (the 2 most uneven of 4)"
    with pytest.raises(ValueError, match="most is 0; allowed: at least 1"):
        label_load(load, ["a", "b", "c", "d"], most=0)


def test_a_map_of_the_image_for_each_expert_on_one_scale():
    load = np.zeros((2, 3, 5))  # 2 rows, 3 columns, 5 experts
    load[1, 2, 4] = 0.5
    ax = position_load(load)
    assert len(ax.images) == 5
    assert texts(ax.texts) == [f"expert {i}" for i in range(5)]
    assert {image.get_clim() for image in ax.images} == {(0, 0.5)}
    assert ax.images[4].get_array().tolist() == [[0, 0, 0], [0, 0, 0.5]]
    boxes = [image.get_extent() for image in ax.images]
    for i, (left, right, bottom, top) in enumerate(boxes):
        assert (bottom - top) / (right - left) == pytest.approx(2 / 3), "patches are square"
        assert not any(
            left < other[1] and other[0] < right and top < other[2] and other[3] < bottom for other in boxes[:i]
        )


@pytest.mark.parametrize(("experts", "printed"), [(2, True), (16, True), (64, False)])
def test_values_are_printed_where_cells_have_room(experts, printed):
    share = np.full((1, experts), 1 / experts)
    for ax in (expert_load(share, ["a"]), experts_per_token(share, ["a"]), label_load(share, ["a"])):
        assert bool(ax.texts) is printed
        assert len(ax.get_xticks()) == min(experts, 16)


def test_text_on_cells_is_light_on_dark_and_dark_on_light_in_every_theme():
    ax = expert_load([[0.9, 0.1, 0.0]], ["a"])
    assert [text.get_color() for text in ax.texts] == [ON_LIGHT, ON_DARK, ON_DARK]


def test_what_is_not_a_number_is_no_cell_and_spoils_no_scale():
    ax = expert_load([[0.9, math.nan]], ["a"])
    assert ax.images[0].get_clim() == (0, 1.0)
    assert texts(ax.texts) == ["90.0"]


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: entropy_by_layer([], [], []), r"entropy has shape \(0,\); allowed: \(layers\)"),
        (lambda: entropy_by_layer([1], [], ["a"]), "entropy_min has 0 entries; allowed: 1, one a layer"),
        (lambda: experts_per_token([[1.0]], LAYERS), "layers has 2 entries; allowed: 1"),
        (lambda: experts_per_token([1.0], ["a"]), r"share_LK has shape \(1,\); allowed: \(layers, experts \+ 1\)"),
        (lambda: label_load([[1.0]], []), "labels has 0 entries; allowed: 1"),
        (lambda: position_load([[0.5]]), r"load_HWE has shape \(1, 1\); allowed: \(rows, columns, experts\)"),
        (lambda: co_activation([]), r"share_EE has shape \(0,\)"),
    ],
)
def test_shapes_that_do_not_fit(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


def test_it_draws_where_it_is_told():
    ax = co_activation([[1.0]]).figure.add_subplot()
    assert entropy_by_layer([1], [0], ["a"], ax) is ax
    ax.figure.clear()
    for draw, values in [(co_activation, [[1.0]]), (position_load, [[[1.0]]])]:
        ax = ax.figure.add_subplot()
        assert draw(values, ax) is ax
    for draw in (experts_per_token, label_load):
        ax = ax.figure.add_subplot()
        assert draw([[1.0]], ["a"], ax) is ax
