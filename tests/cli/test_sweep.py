"""`vmoe eval --theta`: one checkpoint at several thresholds, from the command to the files it leaves."""

import csv
import json
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from world import TRAINED, make_world, spread_scores, vmoe

from vmoe.cli import subject
from vmoe.cli.tasks import images

CHECKPOINT = "runs/tiny/checkpoints/last.pt"
FOLDER = Path("runs/tiny/eval/last-val-theta")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A working directory with a Routing-Free checkpoint, and the thresholds around the middle of its scores."""
    folder = tmp_path_factory.mktemp("sweep")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_world(folder)
        outcome = vmoe("train", "tiny.yaml", "moe.gate=routing_free", "moe.layers=all")
        assert outcome.status == 0, outcome
        spread_scores(Path(CHECKPOINT))
    return folder


@pytest.fixture
def inside(world, monkeypatch):
    monkeypatch.chdir(world)


def sweep(*arguments: str) -> tuple[dict, str]:
    outcome = vmoe("eval", CHECKPOINT, *arguments)
    assert outcome.status == 0, outcome
    return json.loads((FOLDER / "sweep.json").read_text()), outcome.out


def without_speed(result: dict) -> dict:
    return {key: value for key, value in result.items() if key != "images_per_second"}


def test_a_larger_threshold_leaves_fewer_pairs_and_flops(inside):
    record, _ = sweep("--theta", "1.1,0.7,1.0,1.5")
    assert (record["trained_threshold"], record["checkpoint"]) == (TRAINED, CHECKPOINT)
    rows = record["rows"]
    assert [row["threshold"] for row in rows] == [0.7, 1.0, 1.1, 1.5]
    for figures in (
        [row["routing"]["mean"]["density"] for row in rows],
        [row["flops_per_image"] for row in rows],
        [row["active_params"] for row in rows],
    ):
        assert all(low > high for low, high in pairwise(figures)), figures
    assert {row["eval_samples"] for row in rows} == {10}
    assert len({row["loss"] for row in rows}) == 4


def test_the_row_at_the_threshold_of_training_is_a_plain_evaluation(inside):
    plain = vmoe("eval", CHECKPOINT, "--output", "plain")
    assert plain.status == 0, plain
    result = json.loads(Path("plain/result.json").read_text())
    record, _ = sweep("--theta", "0.5,1,2")  # after another threshold, and before another
    row = record["rows"][1]
    assert row.pop("threshold") == TRAINED
    assert set(row) == set(result)
    assert without_speed(row) == without_speed(result)


def test_a_second_sweep_says_the_same(inside):
    first, again = (sweep("--theta", "0.9,1.2")[0]["rows"] for _ in range(2))
    assert list(map(without_speed, first)) == list(map(without_speed, again))


def test_the_data_are_opened_once_and_the_model_is_built_once(inside, monkeypatch):
    calls = []
    where = dict.fromkeys(("read_stored", "build_stored", "measure_cost", "evaluate"), subject)
    for name, module in {**where, "open_evaluation": images}.items():
        function = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, f=function, n=name, **k: (calls.append(n), f(*a, **k))[1])
    sweep("--theta", "0.9,1.0,1.1")
    once = ["read_stored", "open_evaluation", "build_stored", "measure_cost"]
    assert calls == [*once, "evaluate", "evaluate", "evaluate"]


def test_table_plot_and_record_are_written_and_the_table_is_printed(inside):
    weights = Path(CHECKPOINT).read_bytes()
    record, out = sweep("--theta", "0.9,1.0")
    assert {path.name for path in FOLDER.iterdir()} == {"sweep.json", "sweep.md", "sweep.csv", "sweep.png"}
    assert out.splitlines()[-1] == f"{FOLDER}/sweep.json  2 θ, trained with 1.0"
    assert [line.split("  ")[0] for line in out.splitlines() if line.startswith(("0.9", "1.0"))] == [
        "0.9",
        "1.0 (trained)",
    ]
    markdown = (FOLDER / "sweep.md").read_text()
    assert markdown.startswith("| θ | top-1 % | top-5 % | loss | density |")
    assert "| 1.0 (trained) |" in markdown
    with (FOLDER / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row, expected in zip(rows, record["rows"], strict=True):
        for key in ("threshold", "top1", "top5", "loss", "flops_per_image", "active_params"):
            assert float(row[key]) == expected[key]
        for key in ("density", "entropy", "dead"):
            assert float(row[key]) == expected["routing"]["mean"][key]
    assert [row["trained"] for row in rows] == ["0", "1"]
    assert (FOLDER / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert Path(CHECKPOINT).read_bytes() == weights


def test_a_threshold_above_every_score_leaves_the_dense_rest(inside):
    record, _ = sweep("--theta", "1,1e6")
    row = record["rows"][1]
    assert row["routing"]["mean"]["density"] == 0
    assert row["routing"]["mean"]["dead"] == 1
    pairs = sum(sum(i * n for i, n in enumerate(layer["experts_per_token"])) for layer in row["routing"]["layers"])
    assert pairs == 0
    assert 0 < row["flops_per_image"] < record["rows"][0]["flops_per_image"]


def test_several_checkpoints_are_swept_each_into_its_own_folder(inside):
    outcome = vmoe("eval", CHECKPOINT, "runs/tiny/checkpoints/best.pt", "--theta", "1.0,1.5", "--data", "images/train")
    assert outcome.status == 0, outcome
    for name in ("last", "best"):
        rows = json.loads(Path(f"runs/tiny/eval/{name}-train-theta/sweep.json").read_text())["rows"]
        assert [row["eval_samples"] for row in rows] == [24, 24]


def test_one_sweep_goes_where_it_is_told(inside):
    outcome = vmoe("eval", CHECKPOINT, "--theta", "1.0", "--output", "elsewhere")
    assert outcome.status == 0, outcome
    assert Path("elsewhere/sweep.json").exists()


def test_without_matplotlib_there_is_all_but_the_plot(inside, monkeypatch):
    monkeypatch.setitem(sys.modules, "vmoe.report.plots", None)
    outcome = vmoe("eval", CHECKPOINT, "--theta", "1.0", "--output", "plain_table")
    assert outcome.status == 0, outcome
    assert "no picture of the sweep" in outcome.err
    assert {path.name for path in Path("plain_table").iterdir()} == {"sweep.json", "sweep.md", "sweep.csv"}
