"""Which runs of a comparison are seeds of one another, and what their row says."""

import csv
import io
import math

import pytest
from comparable import run_of
from synthetic import result, write

from vmoe.report import comparison, read_run
from vmoe.report.samples import Sample, sample_of
from vmoe.report.seeds import config_of, rows_of

UNEVEN, EVEN = [0.5, 0.25, 0.25, 0.0], [0.25, 0.25, 0.25, 0.25]


def grouped(*runs, **options):
    return [[run.seed for run in row.runs] for row in rows_of(runs, **options).rows]


def labels(*runs):
    return [row.label for row in rows_of(runs).rows]


def test_runs_that_differ_by_seed_and_folder_alone_are_one_row(tmp_path):
    runs = [
        run_of(tmp_path / "topk-seed1", 1),
        run_of(tmp_path / "topk-seed0", 0, workers="4", log_every=10),
        run_of(tmp_path / "self-seed0", 0, gate="self"),
        run_of(tmp_path / "topk-seed7", 7),
    ]
    rows = rows_of(runs)
    assert [[run.seed for run in row.runs] for row in rows.rows] == [[0, 1, 7], [0]]  # in the order of the first runs
    assert [row.label for row in rows.rows] == ["topk", "self-seed0"]
    assert rows.notes == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"balance": "0.1"},
        {"max_steps": "10", "steps": 10},
        {"steps": 99},  # the configs are the same, and yet
        {"data": "other"},
        {"loads": [EVEN, EVEN]},
    ],
)
def test_a_row_holds_only_runs_that_were_trained_and_evaluated_alike(tmp_path, changes):
    assert grouped(run_of(tmp_path / "a", 0), run_of(tmp_path / "b", 1, **changes)) == [[0], [1]]


def test_the_same_seed_again_is_no_further_seed(tmp_path):
    runs = [run_of(tmp_path / "a_0", 0), run_of(tmp_path / "b_0", 0), run_of(tmp_path / "a_1", 1)]
    rows = rows_of(runs)
    assert [[run.folder.name for run in row.runs] for row in rows.rows] == [["a_0", "a_1"], ["b_0"]]
    assert rows.notes == ("The same config and seed as a run before: b_0 (seed 0); not taken for a further seed.",)


def test_an_evaluation_inside_a_run_goes_with_evaluations_like_it(tmp_path):
    runs = [run_of(tmp_path / f"a_{seed}", seed) for seed in (0, 1)]
    inside = [read_run(write(run.folder / "eval" / "last-val", result("topk", seed=run.seed))) for run in runs]
    rows = rows_of([runs[0], inside[0], runs[1], inside[1]])
    assert [row.label for row in rows.rows] == ["a", "a/eval/last-val"]
    assert [row.runs for row in rows.rows] == [tuple(runs), tuple(inside)]
    assert rows.rows[0].config == rows.rows[1].config
    assert grouped(runs[0], inside[1]) == [[0], [1]]


def test_a_run_without_a_config_is_a_row_of_its_own_and_the_note_says_so(tmp_path):
    bare = [read_run(write(tmp_path / name, result(seed=seed))) for seed, name in enumerate(("x_0", "x_1"))]
    rows = rows_of([*bare, run_of(tmp_path / "a", 2)])
    assert [len(row.runs) for row in rows.rows] == [1, 1, 1]
    (note,) = rows.notes
    assert "config.yaml" in note
    assert "x_0, x_1;" in note


def test_each_run_by_itself(tmp_path):
    runs = [run_of(tmp_path / f"a_{seed}", seed) for seed in (1, 0)]
    assert grouped(*runs, each=True) == [[1], [0]]
    assert [row.label for row in rows_of(runs, each=True).rows] == ["a_1", "a_0"]


def test_a_run_that_does_not_say_its_seed_is_no_seed_of_another(tmp_path):
    assert grouped(run_of(tmp_path / "a", None), run_of(tmp_path / "b", None)) == [[None], [None]]


@pytest.mark.parametrize(
    ("names", "label"),
    [
        (("topk_0", "topk_1"), "topk"),
        (("topk-seed-0", "topk-seed-1"), "topk"),
        (("seed0.topk", "seed1.topk"), "topk"),
        (("topk_lr1e-3_s0", "topk_lr1e-3_s1"), "topk_lr1e-3"),
        (("0/topk", "1/topk"), "topk"),
        (("first", "second"), "first and 1 more"),
        (("topk", "topk_again"), "topk and 1 more"),
    ],
)
def test_a_row_goes_by_what_the_names_of_its_runs_share(tmp_path, names, label):
    assert labels(*(run_of(tmp_path / name, seed) for seed, name in enumerate(names))) == [label]


def test_rows_of_one_name_go_by_as_much_of_their_folders_as_tells_them_apart(tmp_path):
    short = [run_of(tmp_path / "short" / f"topk_{seed}", seed, max_steps="9") for seed in (0, 1)]
    whole = [run_of(tmp_path / "whole" / f"topk_{seed}", seed) for seed in (0, 1)]
    assert labels(*short, *whole) == ["short/topk", "whole/topk"]
    deep = [run_of(tmp_path / name / "x" / "topk", max_steps=name) for name in ("1", "2")]
    assert labels(*deep, short[0]) == ["1/x/topk", "2/x/topk", "topk_0"]


def test_the_same_folder_twice_has_two_names(tmp_path):
    run = run_of(tmp_path / "a", 0)
    assert labels(run, run, run_of(tmp_path / "b" / "a", gate="self")) == ["a (1)", "a (2)", "b/a"]


@pytest.mark.parametrize("config", ["", "[]", "a: [", "a: &x 1\nb: *x", "a: &x [*x]", "\x00", "seed: 0", "? [1]\n: 2"])
def test_what_is_no_config_is_unknown(tmp_path, config):
    run = run_of(tmp_path / "a", 0)
    (run.folder / "config.yaml").write_text(config)
    assert config_of(run) is None


def test_a_config_is_flat_and_without_what_changes_nothing(tmp_path):
    assert config_of(run_of(tmp_path / "a", 0)) == {
        "task": "images",
        "model.name": "vit_tiny_patch16_224",
        "moe.gate.kind": "topk",
        "moe.gate.balance": "0.01",
        "data.train": "digits",
        "data.crop_scale": "[0.9, 1.0]",
        "schedule.max_steps": "null",
    }


def test_mean_and_sample_standard_deviation():
    assert sample_of([1.0, 2.0, 6.0]) == Sample(3.0, math.sqrt((4 + 1 + 9) / 2))
    assert sample_of([2.5]) == Sample(2.5, None)
    assert sample_of([0.1] * 3) == Sample(0.1, 0.0)  # where three of them over three would not be 0.1
    assert sample_of([1.0, None]) is None
    assert math.isnan(sample_of([1.0, math.inf]).spread)


def cells(table, row=0):
    return {column.header: column.cells[row] for column in table.columns}


def test_the_cells_of_a_row_of_seeds(tmp_path):
    """Top-1 of 70, 71 and 75: mean 72, deviations −2, −1 and 3, so √(14 / 2) = 2.646. Entropies of 0.75 and 1."""
    runs = [
        run_of(tmp_path / f"a_{seed}", seed, top1=top1, loads=[load])
        for seed, (top1, load) in enumerate([(70.0, UNEVEN), (71.0, UNEVEN), (75.0, EVEN)])
    ]
    row = cells(comparison([*runs, run_of(tmp_path / "dense", gate="dense")]))
    assert (row["run"], row["seeds"]) == ("a", "3")
    assert row["top-1 %"] == "72.00 ± 2.65"
    assert row["top-5 %"] == "90.25"  # the same in all
    assert row["routing entropy"] == "0.833 ± 0.144 (≥ 0.50)"  # mean 2.5 / 3, √((2 · 0.0833² + 0.1667²) / 2) = 0.144
    assert row["dead experts %"] == "16.7 ± 14.4"  # of 25, 25 and 0: mean 16.67, √((2 · 8.33² + 16.67²) / 2) = 14.43
    assert "sample standard deviation" in comparison(runs).note


def test_without_seeds_the_table_is_as_it_was(tmp_path):
    table = comparison([run_of(tmp_path / "a", 0), run_of(tmp_path / "b", 0, gate="self")])
    assert "seeds" not in cells(table)
    assert "±" not in table.text()
    assert "spread" not in table.csv()


def test_csv_has_mean_spread_and_number_unrounded(tmp_path):
    runs = [run_of(tmp_path / f"a_{seed}", seed, top1=top1) for seed, top1 in [(3, 70.0), (5, 70.1)]]
    first, second = csv.DictReader(io.StringIO(comparison([*runs, run_of(tmp_path / "b", gate="self")]).csv()))
    assert (first["n"], first["seeds"], second["n"]) == ("2", "3 5", "1")
    assert float(first["top1"]) == pytest.approx(70.05, abs=1e-12)
    assert float(first["top1_spread"]) == pytest.approx(0.1 / math.sqrt(2), abs=1e-12)
    assert second["top1_spread"] == ""
    assert float(first["params_spread"]) == 0


def test_a_value_that_one_of_the_seeds_lacks_is_missing(tmp_path):
    runs = [run_of(tmp_path / "a_0", 0, top5=None), run_of(tmp_path / "a_1", 1)]
    assert cells(comparison(runs))["top-5 %"] == "–"


def test_names_cannot_steer_a_terminal(tmp_path):
    text = comparison([run_of(tmp_path / "a\x1b[2Jb\nc", 0)]).text()
    assert "\x1b" not in text
    assert "a⟨U+001B⟩[2Jb c" in text


def test_markdown_holds_no_html_of_a_name(tmp_path):
    assert "<img" not in comparison([run_of(tmp_path / "<img src=x>", 0)]).markdown()
