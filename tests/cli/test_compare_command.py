"""`vmoe compare`: formats, seeds and single runs, the folder of a page, and what goes wrong."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from world import vmoe

from vmoe.report.run_page import blocks
from vmoe.report.run_page.drawing import Drawn

CONFIG = """\
output: {folder}
seed: {seed}
moe:
  gate:
    kind: {gate}
    balance: {balance}
"""
FIGURES = dict.fromkeys(
    ("entropy", "entropy_min", "token_entropy", "load_cv", "load_max", "dead", "density", "label_information_share"),
    0.5,
)


@pytest.fixture(autouse=True)
def _runs(tmp_path, monkeypatch):
    """Two seeds of topk, and one of self."""
    monkeypatch.chdir(tmp_path)
    make("topk_0", "topk", 0, 70.0)
    make("topk_1", "topk", 1, 72.0)
    make("self_0", "self", 0, 75.0)


def make(name: str, gate: str, seed: int, top1: float, balance: str = "0.01") -> None:
    folder = Path("runs", name)
    folder.mkdir(parents=True)
    layer = {"layer": "blocks.1.mlp", "load": [0.5, 0.5], "experts_per_token": [0, 8, 0], **FIGURES}
    content = {
        **{"format": 1, "task": "images", "gate": gate, "model": "vit", "data": "digits", "seed": seed, "steps": 10},
        **{"top1": top1, "top5": 90.0, "eval_samples": 8, "loss": 1.0, "params": 1000, "active_params": 500},
        **{"flops_per_image": None, "images_per_second": 10.0, "train_flops": 1e12},
        "routing": {"mean": FIGURES, "layers": [layer]},
    }
    (folder / "result.json").write_text(json.dumps(content))
    (folder / "config.yaml").write_text(CONFIG.format(folder=folder, seed=seed, gate=gate, balance=balance))


ALL = ("runs/topk_0", "runs/topk_1", "runs/self_0")


def test_seeds_are_a_row_and_the_differing_lines_stand_below():
    outcome = vmoe("compare", *ALL)
    assert outcome.status == 0, outcome.err
    lines = [line.split() for line in outcome.out.splitlines() if line]
    assert ["topk", "2", "topk", "71.00", "±", "1.41"] in [line[:6] for line in lines]
    assert ["self_0", "1", "self", "75.00"] in [line[:4] for line in lines]
    assert lines[-1] == ["moe.gate.kind", "topk", "self"]


def test_each_run_by_itself():
    table = list(csv.DictReader(io.StringIO(vmoe("compare", *ALL, "--each", "--format", "csv").out)))
    assert [(row["run"], row["top1"]) for row in table] == [("topk_0", "70.0"), ("topk_1", "72.0"), ("self_0", "75.0")]
    seeds = list(csv.DictReader(io.StringIO(vmoe("compare", *ALL, "--format", "csv").out)))
    assert [(row["run"], row["n"], row["top1"]) for row in seeds] == [("topk", "2", "71.0"), ("self_0", "1", "75.0")]


def test_markdown_has_both_tables():
    out = vmoe("compare", *ALL, "--format", "markdown").out
    assert "| topk | 2 | topk | 71.00 ± 1.41 |" in out
    assert "| moe.gate.kind | topk | self |" in out


def test_many_differing_lines_are_counted():
    config = Path("runs/self_0/config.yaml")
    config.write_text(config.read_text() + "".join(f"extra_{number}: 1\n" for number in range(12)))
    assert "The configs differ in 13 keys; --output FOLDER" in (out := vmoe("compare", *ALL).out)
    assert "moe.gate.kind" in out  # which both have
    assert "extra_0" not in out


def test_a_plot_and_a_folder(monkeypatch):
    nothing = Drawn("")  # drawing takes long, and has tests of its own
    monkeypatch.setattr(blocks, "job", lambda drawing, name, folder: lambda: nothing)
    outcome = vmoe("compare", *ALL, "--plot", "plots/new.png", "--output", "out/here")
    assert outcome.status == 0, outcome.err
    assert outcome.err.split() == ["plots/new.png", "out/here/index.html"]
    assert Path("plots/new.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in Path("out/here").iterdir()} >= {"index.html", "table.md", "table.csv"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("runs/none",), "runs/none: there is no such folder"),
        (("runs",), "runs has no result.json"),
        (("runs/topk_0", "--output", "runs/topk_0/config.yaml"), "config.yaml"),
    ],
)
def test_what_goes_wrong_is_one_line(arguments, says):
    outcome = vmoe("compare", *arguments)
    assert outcome.status == 2
    (line,) = outcome.err.splitlines()
    assert says in line
