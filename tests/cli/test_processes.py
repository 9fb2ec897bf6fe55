"""Several processes count what one process counts."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import in_processes, torchrun
from text_world import make_text_world
from world import make_images, make_world, spread_scores, vmoe

from vmoe.report import read_metrics

IMAGES = 13  # no multiple of the processes or of the batch


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_world(folder)
        make_images(folder / "odd", ("dark", "light"), IMAGES // 2 + 1)
        Path("odd/light/0.png").unlink()
        outcome = vmoe("train", "tiny.yaml", "moe.gate=routing_free")
        assert outcome.status == 0, outcome
        spread_scores(Path("runs/tiny/checkpoints/last.pt"))
        yield folder


def result(folder: str) -> dict:
    return json.loads(Path(folder, "result.json").read_text())


def without_speed(figures: dict) -> dict:
    return {key: value for key, value in figures.items() if key != "images_per_second"}


def equal(one, other) -> bool:
    """Equal counts and figures; losses and confidences to the float32 rounding of logits that other batches bring."""
    rounded = [pytest.approx(one.pop(key), abs=1e-6) for key in ("loss", "calibration_error")]
    return [other.pop(key) for key in ("loss", "calibration_error")] == rounded and one == other


@pytest.mark.parametrize(
    ("start", "processes"), [(in_processes, 2), pytest.param(torchrun, 3, marks=pytest.mark.slow)], ids=["2", "3"]
)
def test_evaluation_gives_the_same_counts_and_statistics(world, start, processes):
    evaluate = ("eval", "runs/tiny/checkpoints/last.pt", "--data", "odd", "--output")
    assert vmoe(*evaluate, "alone").status == 0
    start(processes, *evaluate, "together")
    alone, together = without_speed(result("alone")), without_speed(result("together"))
    assert alone["eval_samples"] == IMAGES
    density = alone["routing"]["mean"]["density"]
    assert 0 < density < 1, "the case says nothing unless some pairs are active and some are not"
    assert equal(alone, together)
    assert_same_counts("alone", "together")


@pytest.mark.parametrize(
    ("start", "processes"), [(in_processes, 2), pytest.param(torchrun, 3, marks=pytest.mark.slow)], ids=["2", "3"]
)
def test_pairs_classes_and_rows_are_the_same(world, start, processes):
    """Of every image, by its place, from whichever process has seen it; written by one process."""
    pair = ("eval", "runs/tiny/checkpoints/last.pt", "--data", "odd", "--against", "odd", "--flip", "--no-routing")
    for folder, run in (("pair_alone", vmoe), ("pair_together", lambda *arguments: start(processes, *arguments))):
        run(*pair, "--output", folder, "--csv", f"{folder}.csv")
    alone, together = (
        json.loads(Path(folder, "against.json").read_text()) for folder in ("pair_alone", "pair_together")
    )
    assert alone["paired"] == together["paired"]
    assert alone["paired"]["images"] == IMAGES
    assert alone["paired"]["agreement"] == 100
    for part in ("data", "against"):
        assert equal(without_speed(alone[part]), without_speed(together[part]))
        classes = [Path(folder, part, "classes.csv").read_text() for folder in ("pair_alone", "pair_together")]
        assert classes[0] == classes[1]
    assert len(Path("pair_together.csv").read_text().splitlines()) == 2, "a header, and a row of one data set"


def assert_same_counts(first: str, second: str) -> None:
    """Every integer that is kept of the routing."""
    one, two = (np.load(Path(folder, "routing.npz")) for folder in (first, second))
    assert one.files == two.files
    assert "0.pairs_by_position" in one.files
    for name in one.files:
        assert np.array_equal(one[name], two[name]), name


def test_a_sweep_of_thresholds_gives_the_same_and_is_written_once(world):
    sweep = ("eval", "runs/tiny/checkpoints/last.pt", "--data", "odd", "--theta", "0.99,1.01", "--output")
    assert vmoe(*sweep, "swept_alone").status == 0
    out = in_processes(2, *sweep, "swept_together")
    assert out.count("swept_together/sweep.json") == 1
    alone, together = (
        [without_speed(row) for row in json.loads(Path(folder, "sweep.json").read_text())["rows"]]
        for folder in ("swept_alone", "swept_together")
    )
    low, high = (row["routing"]["mean"]["density"] for row in alone)
    assert 0 < high < low < 1, "the case says nothing unless the threshold decides which pairs are active"
    for one, other in zip(alone, together, strict=True):
        assert equal(one, other)


def test_training_in_two_processes_steps_as_one(world):
    run = ("train", "tiny.yaml", "moe.gate=routing_free", "optimizer.kind=sgd", "optimizer.lr=0.1")
    assert vmoe(*run, "output=runs/one").status == 0
    out = in_processes(2, *run, "output=runs/two")
    assert out.splitlines()[-1].startswith("runs/two/result.json  routing_free")
    assert_same_training("runs/one", "runs/two")
    one, two = (read_metrics(Path(run, "metrics.jsonl")).train for run in ("runs/one", "runs/two"))
    assert one[0].layers == two[0].layers  # before the first update, after which weights differ in their last bits
    for alone, together in zip(one, two, strict=True):
        assert together.values["loss"] == pytest.approx(alone.values["loss"], rel=1e-4)
        assert together.layers["blocks.1.mlp"].tokens == alone.layers["blocks.1.mlp"].tokens == 8 * 5


def assert_same_training(first: str, second: str, steps: int = 3) -> None:
    """The same steps, controller, FLOPs and, but for sums in another order, weights."""
    one, two = (torch.load(Path(run, "checkpoints/last.pt"), weights_only=True) for run in (first, second))
    assert one["training"]["step"] == two["training"]["step"] == steps
    assert torch.equal(one["training"]["balance"]["coefficient"], two["training"]["balance"]["coefficient"])
    assert one["training"]["train_flops"] == two["training"]["train_flops"]
    for name, tensor in one["weights"].items():
        assert torch.allclose(tensor, two["weights"][name], atol=1e-5), name


# --- text ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def text_world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text_processes")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_text_world(folder)
        yield folder


def test_text_in_two_processes_trains_and_counts_as_in_one(text_world):
    """With an odd number of windows to evaluate, the last one shorter, which one of the processes has alone."""
    overrides = ("moe.gate=routing_free", "optimizer.kind=sgd", "optimizer.lr=0.1", "schedule.max_steps=3")
    run = ("train", "text.yaml", *overrides)
    assert vmoe(*run, "output=runs/one").status == 0
    in_processes(2, *run, "output=runs/two")
    assert_same_training("runs/one", "runs/two")
    assert vmoe("eval", "runs/two/checkpoints/last.pt", "--output", "alone").status == 0
    two, alone = result("runs/two"), result("alone")
    assert alone["eval_tokens"] == two["eval_tokens"]
    assert alone["eval_tokens"] % 16
    assert alone["routing"] == two["routing"]
    assert_same_counts("alone", "runs/two")
    assert alone["loss"] == pytest.approx(two["loss"], rel=1e-6)
