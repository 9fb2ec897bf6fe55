"""`metrics.jsonl`: what is in a line, and what is left of a damaged file."""

import json
import math

import pytest

from vmoe.report.metrics import Served, read_metrics

TRAIN = {
    "kind": "train",
    "step": 50,
    "epoch": 0.5,
    "loss": 1.5,
    "balance_coefficient": 1e-10,
    "routing": {"entropy": 0.75, "density": 0.25},
    "layers": {"blocks.1.mlp": {"tokens": 8, "pairs": [4, 2, 2, 0], "entropy": 0.75}},
}
EVALUATION = {
    "kind": "evaluation",
    "step": 100,
    "epoch": 1.0,
    "top1": 50,
    "routing": {"entropy": 0.5, "label_information": None},
    "layers": {"blocks.1.mlp": {"tokens": 4, "pairs": [1, 1, 1, 1]}},
    "changed": {"blocks.1.mlp": 0.125},
}


def read(tmp_path, *lines):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return read_metrics(path)


def test_lines_of_both_kinds(tmp_path):
    metrics = read(tmp_path, TRAIN, EVALUATION)
    (train,), (evaluation,) = metrics.train, metrics.evaluations
    assert metrics.problems == ()
    assert (train.step, train.epoch) == (50, 0.5)
    assert train.values == {
        "loss": 1.5,
        "balance_coefficient": 1e-10,
        "routing.entropy": 0.75,
        "routing.density": 0.25,
    }
    assert train.layers == {"blocks.1.mlp": Served(8, (4, 2, 2, 0))}
    assert evaluation.values == {"top1": 50, "routing.entropy": 0.5}
    assert evaluation.changed == {"blocks.1.mlp": 0.125}
    assert train.changed == {}


def test_what_experts_served():
    served = Served(8, (4, 2, 2, 0))
    assert served.load == (0.5, 0.25, 0.25, 0)
    assert served.density == 8 / 32
    assert served.entropy == pytest.approx(1.5 * math.log(2) / math.log(4))  # ½ ln 2 + 2 · ¼ ln 4
    assert Served(0, (0, 0)).load == (0, 0)
    assert Served(0, (0, 0)).density == Served(0, (0, 0)).entropy == 0
    assert Served(3, (3,)).entropy == 0


def test_a_step_that_stands_twice_counts_as_it_was_last_written_and_in_order(tmp_path):
    """A run that goes on writes again what it had not kept."""
    metrics = read(tmp_path, TRAIN | {"step": 100}, TRAIN, TRAIN | {"loss": 3})
    assert [(moment.step, moment.values["loss"]) for moment in metrics.train] == [(50, 3), (100, 1.5)]


def test_a_line_without_experts(tmp_path):
    (moment,) = read(tmp_path, {"kind": "train", "step": 1, "epoch": 0, "loss": 2, "routing": None, "layers": {}}).train
    assert (moment.values, moment.layers) == ({"loss": 2}, {})


def test_lines_of_other_kinds_are_for_other_versions(tmp_path):
    metrics = read(tmp_path, {"kind": "note", "step": 1, "epoch": 0}, TRAIN)
    assert len(metrics.train) == 1
    assert metrics.problems == ()


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (json.dumps(TRAIN)[:40], "line 2: "),
        ("[1, 2]", "line 2 is [1, 2]; allowed: a mapping"),
        ('{"step": 1}', "line 2: key 'kind' is missing"),
        (json.dumps(TRAIN | {"step": "one"}), "line 2: step is 'one'; allowed: a whole number"),
        (json.dumps(TRAIN | {"layers": {"a": {"tokens": 1, "pairs": "x"}}}), "line 2: layers: a: pairs is 'x'"),
        (json.dumps(TRAIN | {"layers": [1]}), "line 2: layers is [1]; allowed: a mapping"),
        (json.dumps(TRAIN | {"routing": [1]}), "line 2: routing is [1]; allowed: a mapping"),
        (json.dumps(EVALUATION | {"changed": {"a": "x"}}), "line 2: changed: a is 'x'; allowed: a number"),
        ("\x00\x01", "line 2"),
        ("NaN", "line 2 is nan; allowed: a mapping"),
        ("[" * 100_000, "line 2"),
    ],
    ids=range(11),
)
def test_a_damaged_line_is_named_and_the_others_are_read(tmp_path, line, problem):
    metrics = read(tmp_path, TRAIN, line, EVALUATION)
    assert (len(metrics.train), len(metrics.evaluations)) == (1, 1)
    (found,) = metrics.problems
    assert found.startswith(f"{tmp_path / 'metrics.jsonl'}: ")
    assert problem in found


def test_numbers_that_are_none(tmp_path):
    (moment,) = read(tmp_path, '{"kind": "train", "step": 1, "epoch": 0, "loss": NaN, "lr": Infinity, "x": true}').train
    assert moment.values == {}


def test_a_file_that_is_missing_or_no_text(tmp_path):
    (problem,) = read_metrics(tmp_path / "metrics.jsonl").problems
    assert "metrics.jsonl cannot be read: No such file or directory" in problem
    (tmp_path / "metrics.jsonl").write_bytes(b"\xff\xfe\x00" + json.dumps(TRAIN).encode())
    assert len(read_metrics(tmp_path / "metrics.jsonl").problems) == 1
    (tmp_path / "metrics.jsonl").write_text("")
    assert read_metrics(tmp_path / "metrics.jsonl").problems == ()
