"""The commands, from a folder of pictures to a table of runs."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from world import make_world, vmoe

import vmoe as package
from vmoe.report import read_counts
from vmoe.report.routing_maps import read_routing_maps

ROOT = Path(__file__).parents[2]
FIGURES = {"entropy", "entropy_min", "token_entropy", "load_cv", "load_max", "dead", "density"}
RESULT = {
    *("format", "task", "gate", "model", "data", "seed", "steps", "top1", "top5", "loss", "eval_samples", "params"),
    *("active_params", "flops_per_image", "train_flops", "images_per_second", "routing"),
    *("model_flops_utilisation", "calibration_error", "class_accuracy"),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A working directory with two finished runs, topk and dense."""
    folder = tmp_path_factory.mktemp("world")
    make_world(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        outcomes = [vmoe("train", "tiny.yaml", f"moe.gate={gate}", f"output=runs/{gate}") for gate in ("topk", "dense")]
    assert [outcome.status for outcome in outcomes] == [0, 0], outcomes
    return folder, outcomes


@pytest.fixture
def inside(trained, monkeypatch):
    monkeypatch.chdir(trained[0])
    return trained[0]


def test_a_run_leaves_what_is_documented(trained):
    folder, _ = trained
    run = folder / "runs/topk"
    files = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    assert files == {
        *("config.yaml", "environment.json", "metrics.jsonl", "result.json", "expert_load.png"),
        *("routing.npz", "routing_maps.npz", "classes.csv", "checkpoints/last.pt"),
        *("checkpoints/previous.pt", "checkpoints/best.pt"),
    }
    result = json.loads((run / "result.json").read_text())
    assert set(result) == RESULT
    assert set(result["routing"]["mean"]) >= FIGURES
    assert [layer["layer"] for layer in result["routing"]["layers"]] == ["blocks.1.mlp"]
    assert set(result["routing"]["layers"][0]) >= FIGURES
    assert result["eval_samples"] == 10
    assert result["train_flops"] > 24 * result["flops_per_image"]
    environment = json.loads((run / "environment.json").read_text())
    assert environment["packages"]["torch"] == torch.__version__.partition("+")[0]


def test_counts_are_of_the_figures_of_the_result(inside):
    """10 images of 5 tokens, 2 of 4 experts each; the patches lie 2 by 2 after the class token."""
    result = json.loads(Path("runs/topk/result.json").read_text())["routing"]["layers"][0]
    counts = read_counts(Path("runs/topk/routing.npz"))
    assert counts.labels == ("dark", "light")
    layer = counts.layers["blocks.1.mlp"]
    assert layer.grid.tolist() == [1, 2, 2]
    assert int(layer.tokens) == 50
    assert (layer.pairs / 100).tolist() == pytest.approx(result["load"])
    assert layer.co_activation.tolist() == result["co_activation"]
    assert layer.tokens_by_experts.tolist() == result["experts_per_token"]
    assert layer.pairs_by_label.sum(0).tolist() == layer.pairs_by_position.sum(0).tolist() == layer.pairs.tolist()
    assert layer.tokens_by_position.tolist() == [10] * 5
    assert layer.pairs_by_label.sum(1).tolist() == [50, 50]


def test_maps_are_of_images_of_the_evaluation(inside):
    maps = read_routing_maps(Path("runs/topk/routing_maps.npz"))
    assert maps.images.shape == (10, 8, 8, 3)
    assert maps.labels == ("dark",) * 5 + ("light",) * 5
    (layer,) = maps.layers
    assert (layer.name, layer.grid) == ("blocks.1.mlp", (1, 2, 2))
    counts = read_counts(Path("runs/topk/routing.npz")).layers["blocks.1.mlp"]
    assert (layer.weights >= 0).sum((0, 1)).tolist() == counts.pairs.tolist()  # the sample is the whole set


def test_the_last_line_is_the_results_path_and_headline(trained):
    last = trained[1][0].out.splitlines()[-1]
    assert last.startswith("runs/topk/result.json  topk: top-1 ")


def test_a_dense_run_reports_no_routing(inside):
    result = json.loads(Path("runs/dense/result.json").read_text())
    assert result["routing"] == {"mean": None, "layers": []}
    assert result["active_params"] == result["params"]


def test_evaluation_without_routing_gives_the_same_accuracy_and_no_figures(inside):
    checkpoint = "runs/topk/checkpoints/last.pt"
    assert vmoe("eval", checkpoint, "--no-routing", "--output", "runs/plain").status == 0
    plain, trained = (json.loads(Path(f"runs/{name}/result.json").read_text()) for name in ("plain", "topk"))
    assert plain["routing"] == {"mean": None, "layers": []}
    assert plain["active_params"] is plain["flops_per_image"] is None
    for key in ("top1", "top5", "loss", "eval_samples", "params", "train_flops"):
        assert plain[key] == trained[key]
    assert vmoe("compare", "runs/plain", "runs/topk").status == 0


def test_evaluation_from_the_checkpoint_equals_that_at_the_end_of_training(inside):
    assert vmoe("eval", "runs/topk/checkpoints/last.pt").status == 0
    trained, evaluated = (
        json.loads(Path("runs/topk", *at, "result.json").read_text()) for at in ((), ("eval", "last-val"))
    )
    speed = {"images_per_second"}
    assert {key: trained[key] for key in RESULT - speed} == {key: evaluated[key] for key in RESULT - speed}
    for file in ("routing.npz", "routing_maps.npz"):
        at_the_end, again = (np.load(Path("runs/topk", *at, file)) for at in ((), ("eval", "last-val")))
        assert at_the_end.files == again.files
        for name in again.files:
            np.testing.assert_array_equal(at_the_end[name], again[name], err_msg=name)  # also where both hold NaN


def test_evaluation_takes_other_data_and_another_folder(inside):
    outcome = vmoe("eval", "runs/topk/checkpoints/best.pt", "--data", "images/train", "--output", "elsewhere")
    assert outcome.status == 0, outcome.err
    assert json.loads(Path("elsewhere/result.json").read_text())["eval_samples"] == 24


def test_the_model_loads_from_python(inside):
    model = package.load("runs/topk/checkpoints/last.pt")
    with package.record(model) as routings:
        assert model(torch.zeros(2, 3, 8, 8)).shape == (2, 2)
    assert routings["blocks.1.mlp"].active.shape == (2 * 5, 4)


def test_compare_prints_a_row_a_run(inside):
    outcome = vmoe("compare", "runs/dense", "runs/topk", "--plot", "runs/plot.png")
    assert Path("runs/plot.png").stat().st_size > 1000
    assert outcome.status == 0, outcome.err
    assert [line.split()[0] for line in outcome.out.splitlines() if line.startswith(("dense", "topk"))] == [
        "dense",
        "topk",
    ]


def test_print_config_prints_a_config_that_gives_itself(inside):
    printed = vmoe("train", "tiny.yaml", "moe.gate=self", "--print-config").out
    Path("printed.yaml").write_text(printed)
    assert vmoe("train", "printed.yaml", "--print-config").out == printed
    assert yaml.safe_load(printed)["moe"]["gate"]["kind"] == "self"


def test_dry_run_says_what_it_costs_and_writes_nothing(inside):
    outcome = vmoe("train", "tiny.yaml", "output=runs/dry", "--dry-run")
    assert outcome.status == 0, outcome.err
    for word in ("parameters", "active", "FLOPs/image", "memory", "steps"):
        assert word in outcome.out
    assert not Path("runs/dry").exists()


def test_a_used_output_folder_is_refused_and_left_as_it_was(inside):
    before = {path: path.read_bytes() for path in Path("runs/topk").rglob("*") if path.is_file()}
    outcome = vmoe("train", "tiny.yaml", "output=runs/topk")
    assert outcome.status == 2
    assert "already holds a run" in outcome.err
    assert "train.resume=auto" in outcome.err
    assert before == {path: path.read_bytes() for path in Path("runs/topk").rglob("*") if path.is_file()}


def test_a_run_is_resumed_only_with_its_own_config(inside):
    outcome = vmoe("train", "tiny.yaml", "output=runs/topk", "train.resume=auto", "optimizer.lr=0.5")
    assert outcome.status == 2
    assert "optimizer.lr is 0.5, was 0.001" in outcome.err


def test_a_trial_is_resumed_to_its_end(inside):
    arguments = ("train", "tiny.yaml", "output=runs/trial", "schedule.epochs=2", "train.resume=auto")
    assert vmoe(*arguments, "schedule.max_steps=3").status == 0
    assert vmoe(*arguments).status == 0
    steps = [json.loads(line)["step"] for line in Path("runs/trial/metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)
    assert json.loads(Path("runs/trial/result.json").read_text())["steps"] == 6


@pytest.mark.parametrize("entry", [["-m", "vmoe"], [str(ROOT / "train_imagenet.py")]])
def test_the_script_and_the_module_are_the_command(inside, entry):
    command = ["train"] if entry[0] == "-m" else []
    arguments = [*command, "--config", "tiny.yaml", "moe.gate=random", "--print-config"]
    done = subprocess.run([sys.executable, *entry, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["moe"]["gate"]["kind"] == "random"
