"""Plots: the cells, labels and marks they show, and that a picture is written for every variant."""

import pytest
from synthetic import result, text_result, write

from vmoe.report import parse_result, parse_sweep

pytest.importorskip("matplotlib")

from vmoe.report.plots import (
    accuracy_at_thresholds,
    expert_load,
    no_experts,
    save_expert_load,
    save_sweep,
)

UNEVEN = [0.5, 0.25, 0.25, 0.0]
EVEN = [0.25] * 4
PNG = b"\x89PNG\r\n\x1a\n"


def texts(ax):
    return [text.get_text() for text in ax.texts]


def labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_one_labelled_cell_for_each_expert_and_layer():
    ax = expert_load([UNEVEN, EVEN], ["blocks.1.mlp", "blocks.3.mlp"], title="topk")
    assert ax.images[0].get_array().tolist() == [UNEVEN, EVEN]
    assert texts(ax) == ["50.0", "25.0", "25.0", "0.0", "25.0", "25.0", "25.0", "25.0"]
    assert labels(ax.yaxis) == ["blocks.1.mlp", "blocks.3.mlp"]
    assert labels(ax.xaxis) == ["0", "1", "2", "3"]
    assert (ax.get_title(), ax.get_xlabel(), ax.get_ylabel()) == ("topk", "expert", "MoE layer")


def test_narrow_cells_carry_no_numbers_and_few_ticks():
    ax = expert_load([[1 / 64] * 64] * 12, [f"blocks.{i}.mlp" for i in range(12)])
    assert texts(ax) == []
    assert len(ax.get_xticks()) == 16
    assert len(ax.get_yticks()) == 12


def test_the_scale_runs_from_zero_over_the_marked_fair_share():
    for load in ([UNEVEN], [EVEN], [[0.0] * 4]):
        ax = expert_load(load, ["blocks.1.mlp"])
        assert ax.images[0].get_clim() == (0.0, 0.5)  # twice the fair share of 1/4
        bar = ax.images[0].colorbar
        assert labels(bar.ax.yaxis) == ["0", "25 fair (1/E)", "50"]
    assert expert_load([[1.0, 0.0, 0.0, 0.0]], ["blocks.1.mlp"]).images[0].get_clim() == (0.0, 1.0)


def test_entropies_stand_at_the_right_with_their_bounds():
    ax = expert_load([UNEVEN, EVEN], ["a", "b"], entropy=[0.75, 1.0], entropy_min=[0.5, 0.5])
    (right,) = ax.child_axes
    assert labels(right.yaxis) == ["0.750 (≥ 0.50)", "1.000 (≥ 0.50)"]
    assert right.get_ylabel() == "routing entropy"


def test_it_draws_where_it_is_told():
    first = expert_load([UNEVEN], ["a"])
    ax = first.figure.add_subplot()
    assert expert_load([EVEN], ["b"], ax) is ax
    assert no_experts(ax=ax) is ax


@pytest.mark.parametrize(
    ("load", "layers", "entropy", "message"),
    [
        ([], [], None, "load_LE has shape"),
        ([UNEVEN], ["a", "b"], None, "layers has 2 entries; allowed: 1"),
        ([UNEVEN], ["a"], [0.5, 0.5], "entropy has 2 entries; allowed: 1"),
    ],
)
def test_sizes_that_do_not_fit(load, layers, entropy, message):
    with pytest.raises(ValueError, match=message):
        expert_load(load, layers, entropy=entropy)


@pytest.mark.parametrize("gate", ["dense", "topk", "self", "random", "routing_free"])
def test_every_variant_gets_a_picture(tmp_path, gate):
    path = save_expert_load(result(gate, loads=[UNEVEN, EVEN]), tmp_path / "new" / "load.png")
    assert path == tmp_path / "new" / "load.png"
    assert path.read_bytes().startswith(PNG)


def test_run_folder_and_result_give_the_same_picture(tmp_path):
    content = result(loads=[UNEVEN, EVEN])
    folder = write(tmp_path / "run", content)
    sources = [content, parse_result(content, folder), folder, str(folder)]
    pictures = {save_expert_load(source, tmp_path / f"{i}.png").read_bytes() for i, source in enumerate(sources)}
    assert len(pictures) == 1


def test_the_dense_picture_says_so():
    ax = no_experts("vit_tiny", title="dense")
    assert texts(ax) == ["This model has no experts: every token passes through the same MLP.", "vit_tiny"]


def test_layers_of_different_size_are_refused(tmp_path):
    content = result(loads=[UNEVEN, [0.5, 0.5]])
    with pytest.raises(ValueError, match="layers differ in their number of experts"):
        save_expert_load(content, tmp_path / "load.png")


def sweep(points, trained=1.0):
    """points: (θ, FLOPs, top-1)."""
    rows = [{"threshold": t, **result("routing_free", flops_per_image=f, top1=top1)} for t, f, top1 in points]
    return parse_sweep({"format": 1, "trained_threshold": trained, "rows": rows}, "x")


FALLING = [(0.8, 120e6, 60.0), (0.9, 110e6, 61.0), (1.0, 100e6, 60.5), (1.1, 90e6, 55.0)]


def test_a_labelled_point_for_each_threshold_and_the_one_of_training_apart():
    ax = accuracy_at_thresholds(sweep(FALLING), title="routing_free")
    assert texts(ax) == ["θ = 0.8", "θ = 0.9", "θ = 1.0 (trained)", "θ = 1.1"]
    points = [tuple(dots.get_offsets()[0]) for dots in ax.collections]
    assert points == [(120, 60), (110, 61), (100, 60.5), (90, 55)]
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("MFLOPs an image", "top-1 (%)", "routing_free")
    looks = [(tuple(dots.get_facecolor()[0]), len(dots.get_paths()[0].vertices)) for dots in ax.collections]
    assert looks[0] == looks[1] == looks[3]
    assert looks[2][0] != looks[0][0], "another colour"
    assert looks[2][1] != looks[0][1], "and another shape, for those who do not see the colour"


def test_thresholds_of_one_point_share_a_label_and_the_mark_stays_with_its_own():
    ax = accuracy_at_thresholds(sweep([(0.1, 2e9, 60.0), (0.5, 2e9, 60.0), (3.0, 1e9, 10.0)], trained=0.5))
    assert texts(ax) == ["θ = 0.1, 0.5 (trained)", "θ = 3.0"]


@pytest.mark.parametrize(
    "points",
    [
        FALLING,
        [(0.5 + i / 10, 120e6 - 2e6 * i, 60 + 0.02 * i) for i in range(12)],  # nearly level, close together
        [(0.5 + i / 10, 1e9, 60 + i) for i in range(6)],  # one above the other
    ],
)
def test_labels_lie_inside_and_apart(points):
    ax = accuracy_at_thresholds(sweep(points))
    ax.figure.draw_without_rendering()
    boxes, frame = [text.get_window_extent() for text in ax.texts], ax.get_window_extent()
    for i, box in enumerate(boxes):
        assert frame.x0 <= box.x0 < box.x1 <= frame.x1
        assert frame.y0 <= box.y0 < box.y1 <= frame.y1
        assert not any(box.overlaps(other) for other in boxes[:i])


def test_differences_too_small_to_mean_anything_look_small():
    low, high = accuracy_at_thresholds(sweep([(0.9, 2e9, 60.00), (1.0, 1e9, 60.01)])).get_ylim()
    assert high - low == pytest.approx(1.0)


def test_a_sweep_gets_a_picture(tmp_path):
    path = save_sweep(sweep(FALLING[:1]), tmp_path / "new" / "sweep.png")
    assert path.read_bytes().startswith(PNG)


def test_language_models_are_plotted_by_their_perplexity():
    rows = [{"threshold": 1.0, **text_result("routing_free", perplexity=20.0)}]
    ax = accuracy_at_thresholds(parse_sweep({"format": 1, "trained_threshold": 1.0, "rows": rows}, "x"))
    assert [tuple(dots.get_offsets()[0]) for dots in ax.collections] == [(250, 20)]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("MFLOPs a token", "validation perplexity (lower is better)")
