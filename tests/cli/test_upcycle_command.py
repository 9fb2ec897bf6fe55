"""A trained dense model becomes a MoE checkpoint, and training starts from weights."""

import json
import math
import re
from pathlib import Path

import pytest
import timm
import torch
from torch.nn import functional
from world import TIMM, hub_with_weights, make_world, vmoe

import vmoe as package
from vmoe.cli.tasks import assembly_of
from vmoe.cli.weights import start_of
from vmoe.config import load_config
from vmoe.train.checkpoint import KEYS, read_checkpoint, save_checkpoint
from vmoe.train.checkpoint.contents import ADDED

DENSE = "runs/dense/checkpoints/last.pt"
COPIES = "moe.experts={kind: mlp, hidden: host}"
UPCYCLE = ("upcycle", DENSE, "--to", "tiny.yaml")
# Logits of order 1 after a dozen layers, each a few roundings of 6e-8 off: two float32 evaluations agree to 1e-5.
SAME_LOGITS = 1e-5


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    """A working directory with a trained dense run, and its copies in `runs/tiny/checkpoints/upcycled.pt`."""
    folder = tmp_path_factory.mktemp("upcycle")
    make_world(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        arguments = ("moe.gate=dense", "output=runs/dense", "optimizer.lr=0.01", "data.mean=[0.4, 0.5, 0.6]")
        trained = vmoe("train", "tiny.yaml", *arguments, "data.eval_crop=1.0", "schedule.epochs=2")
        assert trained.status == 0, trained
        upcycled = vmoe(*UPCYCLE, "--set", COPIES, "output=runs/copies", "model.drop_path_rate=0.1")
        assert upcycled.status == 0, upcycled
    return folder, upcycled


@pytest.fixture
def inside(dense, monkeypatch):
    monkeypatch.chdir(dense[0])
    return dense[0]


UPCYCLED = "runs/copies/checkpoints/upcycled.pt"


def rows(out: str) -> dict[str, list[str]]:
    """The cells of the printed table, by layer."""
    lines = [re.split(r"\s{2,}", line) for line in out.splitlines() if line.startswith("blocks.")]
    return {layer: cells for layer, *cells in lines}


def result(*at: str) -> dict:
    return json.loads(Path("runs", *at, "result.json").read_text())


def test_it_prints_a_line_a_layer_and_where_the_checkpoint_is(dense):
    out = dense[1].out
    assert out.splitlines()[-1] == UPCYCLED
    table = rows(out)
    assert list(table) == ["blocks.1.mlp"]
    kind, number, width, rank, factorised, error, density = table["blocks.1.mlp"]
    assert (kind, number, width, rank, factorised, density) == ("mlp", "4", "128", "–", "–", "–")
    assert 0 <= float(error) < 1e-6


def test_the_checkpoint_says_what_it_is(inside):
    stored, source = read_checkpoint(UPCYCLED), read_checkpoint(DENSE)
    assert set(stored) == KEYS | ADDED
    assert stored["data"] == source["data"]
    assert stored["data"]["mean"] == [0.4, 0.5, 0.6]
    assert stored["config"]["data"]["mean"] == [0.4, 0.5, 0.6]
    assert stored["config"]["model"]["weights"] == DENSE
    assert stored["model"]["moe"]["init"] == "upcycle"
    assert stored["model"]["kwargs"] == {**source["model"]["kwargs"], "drop_path_rate": 0.1}
    assert (stored["evaluate"], stored["ema"], stored["training"]["step"]) == ("raw", None, 0)


def test_copies_evaluate_as_the_dense_model(inside):
    for path in (DENSE, UPCYCLED):
        assert vmoe("eval", path).status == 0
    before, after = result("dense", "eval", "last-val"), result("copies", "eval", "upcycled-val")
    assert after["gate"] == "topk"
    assert after["top1"] == before["top1"]
    # a cross-entropy moves by at most twice what its logits move by
    assert after["loss"] == pytest.approx(before["loss"], abs=2 * SAME_LOGITS)
    images = torch.randn(16, 3, 8, 8)
    with torch.no_grad():
        logits = [package.load(path)(images) for path in (DENSE, UPCYCLED)]
    assert (logits[0] - logits[1]).abs().max() <= SAME_LOGITS
    assert logits[0].std() > 0.1


def test_training_goes_on_from_it(inside):
    run = ("train", "tiny.yaml", COPIES, "data.mean=[0.4, 0.5, 0.6]", "output=runs/on", "schedule.max_steps=2")
    outcome = vmoe(*run, f"model.weights={UPCYCLED}", "train.label_smoothing=0.0", "moe.gate.balance=0.0")
    assert outcome.status == 2, "another balance is another moe section"
    outcome = vmoe(*run, f"model.weights={UPCYCLED}", "train.label_smoothing=0.0")
    assert outcome.status == 0, outcome
    first, second = (json.loads(line)["loss"] for line in Path("runs/on/metrics.jsonl").read_text().splitlines()[:2])
    fresh = vmoe("train", "tiny.yaml", COPIES, "data.mean=[0.4, 0.5, 0.6]", "output=runs/off", "schedule.max_steps=1")
    assert fresh.status == 0
    untrained = json.loads(Path("runs/off/metrics.jsonl").read_text().splitlines()[0])["loss"]
    assert first < untrained - 0.1, "it starts where the dense model ended"
    assert second != first
    assert result("on")["steps"] == 2


# --- the printed numbers, computed otherwise -------------------------------------------------------------


def normed_tokens(model, count=20_000):
    """Tokens as the last block's norm gives them, by its gain and shift."""
    norm = model.blocks[1].norm2
    x = torch.randn(count, 32, generator=torch.Generator().manual_seed(3))
    x = (x - x.mean(1, keepdim=True)) / x.var(1, unbiased=False, keepdim=True).sqrt()
    return (x * norm.weight + norm.bias).detach()


def test_the_figures_of_a_low_rank_layer(inside):
    outcome = vmoe(*UPCYCLE, "--set", "moe.gate=routing_free", "moe.layers=all", "--output", "free.pt")
    assert outcome.status == 0, outcome
    table = rows(outcome.out)
    assert list(table) == ["blocks.0.mlp", "blocks.1.mlp"]
    kind, number, width, rank, factorised, error, density = table["blocks.1.mlp"]
    host, model = package.load(DENSE), package.load("free.pt")
    layer, mlp = model.blocks[1].mlp, host.blocks[1].mlp
    hidden, ranks = layer.experts.up.weight.shape[1], layer.experts.gate_down.weight.shape[1]
    assert (kind, number, width, rank) == ("lowrank_glu", "4", str(hidden), str(ranks))

    tail = whole = 0.0
    for e in range(4):
        units = [(e * hidden + unit) % 128 for unit in range(hidden)]
        squares = torch.linalg.svdvals(mlp.fc1.weight.detach()[units].double()).square()
        tail, whole = tail + float(squares[ranks:].sum()), whole + float(squares.sum())
    assert float(factorised) == pytest.approx(math.sqrt(tail / whole), rel=0.06)  # two digits are printed

    x = normed_tokens(host)
    with package.record(model) as routings, torch.no_grad():
        y = layer(x[None])[0]
        wanted = mlp(x)
    # 2048 tokens were measured: some percent of the error, and half a percent of the pairs
    assert float(error) == pytest.approx(float((y - wanted).norm() / wanted.norm()), rel=0.1)
    assert float(density) == pytest.approx(float(routings["blocks.1.mlp"].active.float().mean()), abs=0.02)
    assert float(density) >= 0.9


def test_the_output_of_narrow_experts_is_measured_not_assumed(inside):
    outcome = vmoe(*UPCYCLE, "--set", "moe.shared_experts=1", "moe.gate.renormalize=false", "--output", "narrow.pt")
    assert outcome.status == 0, outcome
    _, number, width, *_, error, _ = rows(outcome.out)["blocks.1.mlp"]
    assert (number, width) == ("4 + 1", "40")
    host, model = package.load(DENSE), package.load("narrow.pt")
    x = normed_tokens(host)
    with torch.no_grad():
        y, wanted = model.blocks[1].mlp(x[None])[0], host.blocks[1].mlp(x)
    assert float(error) == pytest.approx(float((y - wanted).norm() / wanted.norm()), rel=0.1)
    assert float(error) > 0.05


def test_a_gate_that_reads_the_residual_stream_is_measured_through_its_own_norm(inside):
    outcome = vmoe(*UPCYCLE, "--set", "moe.gate={kind: self, input: residual}", COPIES, "--output", "residual.pt")
    assert outcome.status == 0, outcome
    assert float(rows(outcome.out)["blocks.1.mlp"][-2]) < 1e-6
    images = torch.randn(4, 3, 8, 8)
    with torch.no_grad():
        difference = package.load("residual.pt")(images) - package.load(DENSE)(images)
    assert difference.abs().max() <= SAME_LOGITS


def test_a_dense_glu_of_the_mlp(inside):
    """No gate, one GLU expert: evaluates, and its error is printed."""
    sets = ("moe.gate=dense", "moe.experts={kind: glu, hidden: host}")
    outcome = vmoe(*UPCYCLE, "--set", *sets, "--output", "glu.pt")
    assert outcome.status == 0, outcome
    kind, number, width, *_ = rows(outcome.out)["blocks.1.mlp"]
    assert (kind, number, width) == ("glu", "1", "128")
    mlp, glu = package.load(DENSE).blocks[1].mlp, package.load("glu.pt").blocks[1].mlp.experts
    assert glu.up.weight[0].equal(mlp.fc1.weight)
    assert type(glu.activation).__name__ == "Sigmoid"


# --- weights to start from -------------------------------------------------------------------------------


def built(*overrides: str):
    """The model that training would begin with."""
    config = load_config("tiny.yaml", overrides)
    torch.manual_seed(0)
    return assembly_of(config).build_model({"classes": ["dark", "light"]}, start_of(config)).eval()


def test_a_dense_checkpoint_goes_into_the_host_before_the_experts_are_made(inside):
    moe = {"gate": "topk", "num_experts": 4, "layers": "last1", "init": "upcycle"}
    model = built(f"model.weights={DENSE}", "moe.init=upcycle", COPIES)
    experts = model.blocks[1].mlp.experts
    mlp = package.load(DENSE).blocks[1].mlp
    assert all(experts.fc1.weight[e].equal(mlp.fc1.weight) for e in range(4))
    from_python = package.add_moe(package.load(DENSE), {**moe, "experts": {"kind": "mlp", "hidden": "host"}})
    images = torch.randn(4, 3, 8, 8)
    with torch.no_grad():
        assert (model(images) - from_python(images)).abs().max() <= SAME_LOGITS


def test_with_fresh_experts_the_rest_of_the_network_is_taken_over(inside):
    weights, source = built(f"model.weights={DENSE}").state_dict(), read_checkpoint(DENSE)["weights"]
    shared = {name for name in weights if ".1.mlp." not in name}
    assert {name for name in source if ".1.mlp." not in name} == shared
    assert all(weights[name].equal(source[name]) for name in shared)
    rows_of_host = {tuple(row) for row in source["blocks.1.mlp.fc1.weight"].tolist()}
    assert not rows_of_host & {tuple(row) for row in weights["blocks.1.mlp.experts.fc1.weight"].flatten(0, 1).tolist()}


def test_a_dense_checkpoint_starts_a_dense_run(inside):
    weights, source = built(f"model.weights={DENSE}", "moe.gate=dense").state_dict(), read_checkpoint(DENSE)["weights"]
    assert all(weights[name].equal(source[name]) for name in source)


@pytest.mark.parametrize("init", ["fresh", "upcycle"])
def test_a_moe_checkpoint_goes_in_at_the_end(inside, init):
    model = built(f"model.weights={UPCYCLED}", COPIES, f"moe.init={init}", "moe.dispatch=reference")
    source = read_checkpoint(UPCYCLED)["weights"]
    assert set(model.state_dict()) == set(source)
    assert all(tensor.equal(source[name]) for name, tensor in model.state_dict().items())


def test_upcycled_glu_experts_are_not_taken_for_fresh_ones(inside):
    """Their activation is a sigmoid, which the config has to say, by `init` or by name."""
    assert vmoe(*UPCYCLE, "--set", "moe.experts=glu", "--output", "sigmoid.pt").status == 0
    with pytest.raises(ValueError, match=r"moe.init is 'upcycle' there, 'fresh' here"):
        built("model.weights=sigmoid.pt", "moe.experts=glu")
    model = built("model.weights=sigmoid.pt", "moe.experts=glu", "moe.init=upcycle")
    assert type(model.blocks[1].mlp.experts.activation).__name__ == "Sigmoid"


def test_the_weights_that_count_are_taken(inside):
    """A run that evaluates its moving average is continued, and converted, from that."""
    stored = read_checkpoint(DENSE)
    stored |= {"ema": {name: 0.5 * tensor for name, tensor in stored["weights"].items()}, "evaluate": "ema"}
    save_checkpoint(Path("averaged.pt"), stored)
    assert vmoe("upcycle", "averaged.pt", "--to", "tiny.yaml", "--output", "of_average.pt").status == 0
    for weights in (built("model.weights=averaged.pt").state_dict(), read_checkpoint("of_average.pt")["weights"]):
        assert weights["pos_embed"].equal(stored["ema"]["pos_embed"])


def test_nothing_needs_the_weights_once_the_run_has_begun(inside):
    """Neither resuming, nor evaluating, nor loading."""
    Path("gone.pt").write_bytes(Path(DENSE).read_bytes())
    run = ("train", "tiny.yaml", "moe.init=upcycle", "model.weights=gone.pt", "output=runs/began", "train.resume=auto")
    assert vmoe(*run, "schedule.epochs=2", "schedule.max_steps=3").status == 0
    Path("gone.pt").unlink()
    assert vmoe("eval", "runs/began/checkpoints/last.pt").status == 0
    assert vmoe(*run, "schedule.epochs=2").status == 0
    assert result("began")["steps"] == 6
    with torch.no_grad():
        assert package.load("runs/began/checkpoints/last.pt")(torch.zeros(1, 3, 8, 8)).shape == (1, 2)
    outcome = vmoe(*run[:-2], "output=runs/again")
    assert outcome.status == 2
    assert "model.weights is gone.pt: no such checkpoint" in outcome.err


def test_a_run_is_not_resumed_from_other_weights(inside):
    run = ("train", "tiny.yaml", "output=runs/fixed", "train.resume=auto")
    assert vmoe(*run, f"model.weights={DENSE}").status == 0
    outcome = vmoe(*run, f"model.weights={UPCYCLED}")
    assert outcome.status == 2
    assert "model.weights is" in outcome.err


# --- timm's models ---------------------------------------------------------------------------------------


@pytest.fixture
def pretrained(inside, monkeypatch):
    """Weights that the Hub would send for TIMM; and a config for that model."""
    host = hub_with_weights(monkeypatch)
    text = re.sub(r"model: .*", f"model: {{name: {TIMM}}}", Path("tiny.yaml").read_text())
    Path("whole.yaml").write_text(text.replace("image_size: 8", "image_size: 224"))
    return host


def test_a_pretrained_model_of_timm_is_converted(pretrained):
    sets = (COPIES, "moe.num_experts=2", "moe.gate.k=1")
    outcome = vmoe("upcycle", TIMM, "--to", "whole.yaml", "--set", *sets, "--output", "whole.pt")
    assert outcome.status == 0, outcome
    assert float(rows(outcome.out)["blocks.11.mlp"][-2]) < 1e-6
    data = read_checkpoint("whole.pt")["data"]
    assert len(data["classes"]) == 1000
    assert data["classes"][0] == "n01440764"  # the tench, ImageNet's first folder
    assert data["mean"] == data["std"] == [0.5, 0.5, 0.5]  # of this model, not of the config
    assert data["eval_crop"] == timm.get_pretrained_cfg(TIMM).crop_pct
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        logits, wanted = package.load("whole.pt")(images), pretrained(images)
    assert (logits - wanted).abs().max() <= SAME_LOGITS * max(1, float(wanted.abs().max()))
    assert functional.cosine_similarity(logits, wanted).min() > 0.9999


def test_without_a_network_the_error_says_so(pretrained, monkeypatch):
    def unreachable(*_, **__):
        raise FileNotFoundError("we cannot find the requested files in the local cache.\nmore")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", unreachable)
    outcome = vmoe("upcycle", TIMM, "--to", "whole.yaml", "--output", "never.pt")
    assert outcome.status == 2
    assert outcome.err.startswith(f"vmoe upcycle: the pretrained weights of '{TIMM}' cannot be had: we cannot find")
    assert "a network" in outcome.err
    assert "more" not in outcome.err
    assert not Path("never.pt").exists()
