"""Several processes count what one process counts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from world import make_images, make_world, vmoe

import vmoe as package

IMAGES = 13  # no multiple of the processes or of the batch


def torchrun(processes: int, *arguments: str) -> str:
    """Run a command in several processes on this machine; returns its standard output."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launcher, "-m", "vmoe", *arguments], capture_output=True, text=True, env=environment, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


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
        raise_biases(Path("runs/tiny/checkpoints/last.pt"))
        yield folder


def raise_biases(path: Path) -> None:
    """Give a Routing-Free checkpoint biases with which about half of its pairs are active."""
    model = package.load(path)
    with package.record(model) as routings, torch.no_grad():
        model(torch.randn(64, 3, 8, 8))
    checkpoint = torch.load(path, weights_only=True)
    for layer, routing in routings.items():
        checkpoint["weights"][f"{layer}.gate.bias"] += routing.scores.median(dim=0).values - 1  # the threshold
    torch.save(checkpoint, path)


def result(folder: str) -> dict:
    return json.loads(Path(folder, "result.json").read_text())


def without_speed(figures: dict) -> dict:
    return {key: value for key, value in figures.items() if key != "images_per_second"}


def equal(one, other) -> bool:
    """Equal counts and figures; losses to the float32 rounding of logits that other batches bring."""
    loss = pytest.approx(one.pop("loss"), rel=1e-6)
    return other.pop("loss") == loss and one == other


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_evaluation_gives_the_same_counts_and_statistics(world, processes):
    evaluate = ("eval", "runs/tiny/checkpoints/last.pt", "--data", "odd", "--output")
    assert vmoe(*evaluate, "alone").status == 0
    torchrun(processes, *evaluate, "together")
    alone, together = without_speed(result("alone")), without_speed(result("together"))
    assert alone["eval_samples"] == IMAGES
    density = alone["routing"]["mean"]["density"]
    assert 0 < density < 1, "the case says nothing unless some pairs are active and some are not"
    assert equal(alone, together)


def test_a_sweep_of_thresholds_gives_the_same_and_is_written_once(world):
    sweep = ("eval", "runs/tiny/checkpoints/last.pt", "--data", "odd", "--theta", "0.99,1.01", "--output")
    assert vmoe(*sweep, "swept_alone").status == 0
    out = torchrun(2, *sweep, "swept_together")
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
    out = torchrun(2, *run, "output=runs/two")
    assert out.splitlines()[-1].startswith("runs/two/result.json  routing_free")
    one, two = (torch.load(Path("runs", name, "checkpoints/last.pt"), weights_only=True) for name in ("one", "two"))
    assert one["training"]["step"] == two["training"]["step"] == 3
    assert torch.equal(one["training"]["balance"]["coefficient"], two["training"]["balance"]["coefficient"])
    assert one["training"]["train_flops"] == two["training"]["train_flops"]
    for name, tensor in one["weights"].items():  # the same images a step, summed in another order
        assert torch.allclose(tensor, two["weights"][name], atol=1e-5), name
