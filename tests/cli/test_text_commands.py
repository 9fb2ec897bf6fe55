"""Text by the same commands: trained, evaluated, upcycled, compared, looked at."""

import json
from pathlib import Path

import pytest
import torch
from text_world import PLAIN, make_text_world
from world import vmoe

import vmoe as package

CHECKPOINT = "runs/text/checkpoints/last.pt"
SCORES = {"perplexity", "bits_per_byte", "word_perplexity", "loss", "eval_tokens"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A working directory with a finished dense run and one with MoE layers."""
    folder = tmp_path_factory.mktemp("text")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_text_world(folder)
        for options in ((), ("moe.gate=dense", "output=runs/dense")):
            outcome = vmoe("train", "text.yaml", *options)
            assert outcome.status == 0, outcome
    return folder


@pytest.fixture
def inside(world, monkeypatch):
    monkeypatch.chdir(world)
    return world


def result(folder: str) -> dict:
    return json.loads(Path(folder, "result.json").read_text())


def test_a_run_leaves_the_files_of_every_run_and_the_figures_of_text(inside):
    run = inside / "runs/text"
    assert {path.name for path in run.iterdir()} >= {"config.yaml", "environment.json", "metrics.jsonl", "result.json"}
    figures = result("runs/text")
    assert SCORES | {"flops_per_token", "tokens_per_second", "model_flops_utilisation"} <= set(figures)
    assert figures["task"] == "text"
    assert figures["eval_tokens"] == len(PLAIN.encode())  # each but the first, and the end of text after the last
    assert figures["routing"]["mean"]["label_information"] > 0


def test_evaluation_gives_what_training_ended_with(inside):
    assert vmoe("eval", CHECKPOINT).status == 0
    again = result("runs/text/eval/last-val")
    assert {key: again[key] for key in SCORES} == {key: result("runs/text")[key] for key in SCORES}
    assert again["routing"] == result("runs/text")["routing"]


def test_windows_that_overlap_count_the_same_tokens(inside):
    assert vmoe("eval", CHECKPOINT, "--set", "data.eval_stride=4", "--output", "sliding").status == 0
    sliding, apart = result("sliding"), result("runs/text")
    assert sliding["eval_tokens"] == apart["eval_tokens"]
    assert sliding["perplexity"] != apart["perplexity"]


def test_other_text_is_evaluated_by_its_file(inside):
    assert vmoe("eval", CHECKPOINT, "--data", "train.tokens", "--output", "other").status == 0
    assert result("other")["eval_tokens"] > result("runs/text")["eval_tokens"]


def test_copies_of_a_trained_mlp_evaluate_as_the_dense_model(inside):
    copies = ("moe.gate={kind: topk, k: 1}", "moe.experts={kind: mlp, hidden: host}")
    outcome = vmoe("upcycle", "runs/dense/checkpoints/last.pt", "--to", "text.yaml", "--set", *copies, "output=up")
    assert outcome.status == 0, outcome
    assert vmoe("eval", "up/checkpoints/upcycled.pt").status == 0
    assert result("up/eval/upcycled-val")["loss"] == pytest.approx(result("runs/dense")["loss"], rel=1e-6)
    start = "model.weights=runs/dense/checkpoints/last.pt"
    again = vmoe("train", "text.yaml", *copies, start, "moe.init=upcycle", "schedule.max_steps=1", "output=runs/up")
    assert again.status == 0, again


def test_a_table_of_text_runs(inside):
    outcome = vmoe("compare", "runs/text", "runs/dense", "--format", "csv")
    assert outcome.status == 0
    header = outcome.out.splitlines()[0]
    assert "perplexity" in header
    assert "top1" not in header


def test_a_loaded_model_writes_text(inside):
    model = package.load(CHECKPOINT)
    prompt = torch.tensor([list(b"the cat ")])
    written = model.generate(prompt, max_new_tokens=8, do_sample=False, pad_token_id=256)
    assert written.shape == (1, 16)
    assert bytes(written[0, 8:].tolist()).decode().isprintable()


def test_the_page_shows_every_token(inside):
    outcome = vmoe("inspect", CHECKPOINT, "--text", "the cat sat on the mat, " * 3)
    assert outcome.status == 0, outcome
    page = Path(outcome.out.strip())
    assert page == Path("runs/text/inspect/last.html")
    text = page.read_text()
    assert "transformer.h.1.mlp" in text
    assert "<script" in text
    Path("some.txt").write_text("on the mat")
    assert vmoe("inspect", CHECKPOINT, "--text", "some.txt", "--output", "some.html").status == 0
    assert Path("some.html").stat().st_size < page.stat().st_size
