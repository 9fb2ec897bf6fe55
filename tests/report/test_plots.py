"""Plots of expert load: the cells, labels and marks they show, and that a picture is written for every variant."""

import pytest
from synthetic import result, write

from vmoe.report import parse_result

pytest.importorskip("matplotlib")

from vmoe.report.plots import expert_load, no_experts, save_expert_load

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
