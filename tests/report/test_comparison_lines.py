"""What a comparison draws: means over seeds at the same steps, layers side by side, points with their spread."""

import json
import math

import pytest
from comparable import log, run_of
from synthetic import result, write

from vmoe.report import read_run
from vmoe.report.comparison_page.history import MOST_POINTS, Curve, histories_of
from vmoe.report.comparison_page.lines import draw_by_layer, draw_curves, experts_per_token, spans_factors
from vmoe.report.comparison_page.scores import TRAINING, draw_scores, left_out, save_scores
from vmoe.report.seeds import rows_of
from vmoe.report.tasks import IMAGES


def train(step, **values):
    return {"kind": "train", "step": step, **values}


def history(tmp_path, *logs):
    """Of one row, each of whose seeds has one of the logs."""
    runs = [run_of(tmp_path / f"a_{seed}", seed) for seed in range(len(logs))]
    for run, lines in zip(runs, logs, strict=True):
        if lines is not None:
            log(run.folder, *lines)
    (row,) = rows_of(runs).rows
    (found,) = histories_of([row])
    return found


def test_a_curve_is_the_mean_of_the_seeds_at_the_steps_that_all_have(tmp_path):
    found = history(
        tmp_path,
        [train(10, loss=2.0), train(20, loss=1.0), train(30, loss=9.0)],
        [train(10, loss=4.0), train(20, loss=1.0), train(25, loss=7.0)],
    )
    spread = math.sqrt(2)  # of 2 and 4: √((1 + 1) / 1)
    assert found.trained("loss") == Curve((10, 20), (3, 1), (3 - spread, 1), (3 + spread, 1))
    assert found.trained("lr") == Curve()


def test_a_curve_of_logarithms_has_the_geometric_mean_and_no_bound_below_zero(tmp_path):
    found = history(tmp_path, [train(1, c=1e-8), train(2, c=0.0)], [train(1, c=1e-2), train(2, c=1.0)])
    curve = found.trained("c", log=True)
    assert curve.steps == (1,)  # where one is 0 there is no logarithm
    assert curve.mean[0] == pytest.approx(1e-5)
    spread = 10 ** (3 * math.sqrt(2))  # of the exponents −8 and −2: 3 √2
    assert (curve.low[0], curve.high[0]) == pytest.approx((1e-5 / spread, 1e-5 * spread))


def test_a_seed_without_a_log_is_left_out_and_named(tmp_path):
    found = history(tmp_path, [train(10, loss=2.0)], None)
    assert found.trained("loss").mean == (2.0,)
    (note,) = found.notes
    assert "a_1/metrics.jsonl" in note


def test_damaged_lines_are_told_and_the_others_drawn(tmp_path):
    found = history(tmp_path, [train(10, loss=2.0)])
    path = tmp_path / "a_0" / "metrics.jsonl"
    path.write_text(path.read_text() + "{half a li\n")
    (again,) = histories_of(rows_of([read_run(tmp_path / "a_0")]).rows)
    assert again.trained("loss") == found.trained("loss")
    assert "line 2" in again.notes[0]


def test_what_training_does_not_log_comes_from_the_evaluations(tmp_path):
    lines = [train(10, loss=2.0), {"kind": "evaluation", "step": 12, "routing": {"entropy": 0.5}}]
    found = history(tmp_path, lines)
    assert found.observed("routing.entropy").steps == (12,)
    assert found.observed("loss").steps == (10,)


def test_long_logs_become_means_of_neighbours(tmp_path):
    steps = range(1, 2 * MOST_POINTS + 1)
    curve = history(tmp_path, [train(step, loss=float(step)) for step in steps]).trained("loss")
    assert len(curve.steps) == MOST_POINTS
    assert curve.mean[:2] == (1.5, 3.5)


def test_an_evaluation_inside_a_run_adds_no_second_training(tmp_path):
    run = run_of(tmp_path / "a", 0)
    log(run.folder, train(1, loss=2.0))
    inside = read_run(write(run.folder / "eval" / "last-val", result()))
    first, second = histories_of(rows_of([run, inside]).rows)
    assert first.trained("loss").steps == (1,)
    assert second.trained("loss") == Curve()
    assert "drawn under a" in second.notes[0]
    (alone,) = histories_of(rows_of([inside]).rows)
    assert alone.trained("loss").steps == (1,)


def lines_of(ax):
    return {line.get_label(): line for line in ax.get_lines()}


def legend_of(ax):
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    return dict(zip(texts, [handle.get_color() for handle in ax.get_legend().legend_handles], strict=True))


def test_a_row_has_the_same_colour_in_every_figure(tmp_path):
    rows = rows_of([run_of(tmp_path / name, balance=name) for name in "abc"]).rows
    line = Curve((1, 2), (1.0, 2.0), (1.0, 2.0), (1.0, 2.0))
    whole = legend_of(draw_curves(rows, [line, line, line], ylabel="y"))
    part = legend_of(draw_curves(rows, [Curve(), line, Curve()], ylabel="y"))
    assert list(whole) == ["a", "b", "c"]
    assert part == {"b": whole["b"]}
    with pytest.raises(ValueError, match="no run has logged it"):
        draw_curves(rows, [Curve()] * 3, ylabel="y")


def test_an_axis_is_logarithmic_for_what_spans_factors():
    assert spans_factors([Curve((1, 2), (1000.0, 20.0))])
    assert not spans_factors([Curve((1, 2), (3.0, 1.0))])
    assert not spans_factors([Curve((1, 2), (1000.0, 0.0))])
    assert not spans_factors([Curve()])


def test_layers_stand_at_their_blocks_with_the_mean_of_the_seeds(tmp_path):
    """Entropies of two layers of 2 experts: of [½, ½] 1, of [1, 0] 0."""
    even, one = [0.5, 0.5], [1.0, 0.0]
    loads = ([even, one], [one, one])
    (row,) = rows_of([run_of(tmp_path / f"a_{seed}", seed, loads=load) for seed, load in enumerate(loads)]).rows
    ax = draw_by_layer([row], lambda layer: layer.figures.entropy, ylabel="y")
    (line,) = ax.get_lines()
    assert line.get_xdata().tolist() == [1, 3]  # blocks.1.mlp and blocks.3.mlp
    assert line.get_ydata().tolist() == [0.5, 0]
    assert ax.get_xlabel() == "block of the MoE layer"


def test_layers_without_one_number_are_counted(tmp_path):
    run = run_of(tmp_path / "a", loads=[[0.5, 0.5], [0.5, 0.5]])
    content = json.loads((run.folder / "result.json").read_text())
    for number, layer in enumerate(content["routing"]["layers"]):
        layer["layer"] = f"stages.{number}.blocks.0.mlp"
    rows = rows_of([read_run(write(run.folder, content))]).rows
    ax = draw_by_layer(rows, lambda layer: layer.figures.entropy, ylabel="y")
    assert ax.get_lines()[0].get_xdata().tolist() == [1, 2]
    assert ax.get_xlabel() == "MoE layer, from the first"


def test_experts_per_token_of_rows_with_different_numbers_of_experts(tmp_path):
    """Every token has 2 of 2 or of 4 experts."""
    runs = [run_of(tmp_path / "two", loads=[[0.5, 0.5]]), run_of(tmp_path / "four", balance="1")]
    labels, shares = experts_per_token(rows_of([*runs, run_of(tmp_path / "dense", gate="dense")]).rows)
    assert labels == ["two", "four"]
    assert shares == [[0, 0, 1, 0, 0], [0, 0, 1, 0, 0]]


def test_a_point_a_row_with_the_spread_of_its_seeds(tmp_path):
    runs = [
        *(run_of(tmp_path / f"a_{seed}", seed, top1=70.0 + 2 * seed, train_flops=1e15 * (1 + seed)) for seed in (0, 1)),
        run_of(tmp_path / "b", gate="dense", top1=60.0, train_flops=2e15),
        run_of(tmp_path / "c", balance="1", train_flops=None),
    ]
    rows = rows_of(runs).rows
    ax = draw_scores(rows, IMAGES, TRAINING)
    offsets = [tuple(map(float, one)) for collection in ax.collections for one in collection.get_offsets()]
    assert {(1.5, 71.0), (2.0, 60.0)} <= set(offsets)
    (bar,) = [segment for found in ax.collections if hasattr(found, "get_segments") for segment in found.get_segments()]
    assert bar[:, 1].tolist() == pytest.approx([71 - math.sqrt(2), 71 + math.sqrt(2)])
    assert {"a", "b"} <= {text.get_text() for text in ax.texts}
    assert ax.get_xlabel() == "PFLOPs spent in training"
    assert left_out(rows, IMAGES, TRAINING) == ("c",)


def test_a_plot_of_several_tasks_is_refused(tmp_path):
    rows = rows_of([run_of(tmp_path / "a"), run_of(tmp_path / "b", text=True)]).rows
    with pytest.raises(ValueError, match=r"one plot needs one task, and these have 2: a \(images\), b \(text\)"):
        save_scores(rows, tmp_path / "plot.png")


def test_without_any_cost_there_is_nothing_to_plot(tmp_path):
    rows = rows_of([run_of(tmp_path / "a", train_flops=None)]).rows
    with pytest.raises(ValueError, match="no run says its training flops"):
        save_scores(rows, tmp_path / "plot.png")
