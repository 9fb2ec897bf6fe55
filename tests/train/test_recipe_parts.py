"""The parts of a recipe that the loop puts together: decay of experts, precisions, sizes, averages."""

from __future__ import annotations

import pytest
import torch
from memory import ALONE, dark_or_bright, tiny_config, tiny_run

import vmoe
from vmoe.config import OptimizerConfig, override_config
from vmoe.moe import moe_layers
from vmoe.train.checkpoint import read_checkpoint
from vmoe.train.loop import fit
from vmoe.train.meter import Meter
from vmoe.train.optim import build_optimizer
from vmoe.train.parallel import Layout
from vmoe.train.precision import set_float32_products
from vmoe.train.step import train_step

VIT = {"patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 8, "num_classes": 2}


def decay_of(model, **changes):
    optimizer = build_optimizer(model, OptimizerConfig(weight_decay=0.05, **changes))
    names = {parameter: name for name, parameter in model.named_parameters()}
    found = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert names[parameter] not in found
            found[names[parameter]] = (group["weight_decay"], group.get("lr_scale", 1.0))
    return found


@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
@pytest.mark.parametrize("gate", ["topk", "routing_free", "dense"])
def test_experts_decay_by_their_own_rate(gate, layer_decay):
    moe = {"gate": gate, "num_experts": 4, "experts": {"kind": "lowrank_glu"}, "layers": "all"}
    if gate == "topk":
        moe |= {"experts": {"kind": "mlp"}, "shared_experts": 1}
    model = vmoe.create_model("vit_tiny_patch16_224", moe=moe, **VIT)
    before = decay_of(model, layer_decay=layer_decay)
    after = decay_of(model, layer_decay=layer_decay, expert_weight_decay=0.3)
    assert before.keys() == after.keys() == dict(model.named_parameters()).keys()
    of_experts = {name for name in before if ("experts." in name or "shared." in name) and name.endswith("weight")}
    assert of_experts
    for name, (decay, scale) in before.items():
        assert after[name] == (0.3 if name in of_experts else decay, scale), name
    exempt = [name for name in before if name.endswith((".bias", "gate.scale"))]
    assert exempt
    assert all(after[name][0] == 0 for name in exempt)


def test_experts_alone_may_decay():
    model = vmoe.create_model("vit_tiny_patch16_224", moe={"gate": "topk", "num_experts": 4}, **VIT)
    optimizer = build_optimizer(model, OptimizerConfig(weight_decay=0.0, expert_weight_decay=0.3))
    decaying = {
        id(parameter) for group in optimizer.param_groups if group["weight_decay"] for parameter in group["params"]
    }
    ((_, layer),) = moe_layers(model)
    assert decaying == {id(layer.experts.fc1.weight), id(layer.experts.fc2.weight)}


@pytest.mark.parametrize(("given", "expected"), [("null", 0.1), ("0.4", 0.4), ("0", 0.0)])
def test_expert_dropout_takes_the_hosts_unless_it_is_given(given, expected, tmp_path):
    overrides = ("model.kwargs.proj_drop_rate=0.1", f"moe.experts={{kind: mlp, dropout: {given}}}")
    state, _ = tiny_run(tiny_config(*overrides), tmp_path)
    ((_, layer),) = moe_layers(state.model)
    assert layer.experts.dropout == expected
    assert layer.dropout == 0.1  # of the output, as ever


def test_a_run_grows_its_images_and_counts_what_they_cost(tmp_path):
    overrides = ("schedule.epochs=2", "data.progressive={start: 4, end: 0.5, multiple: 4}", "moe.gate=dense")
    config = tiny_config(*overrides)
    state, parts = tiny_run(config, tmp_path / "grows")
    sides = [shape[-1] for shape in parts.train_costs]
    assert sides == [4, 8]
    small, large = (cost.fixed_train_flops for cost in parts.train_costs.values())
    assert small < large / 2  # 1 of 4 patches, and the class token
    whole = parts.train_loader
    images = whole.images[:, :, ::2, ::2].contiguous()
    epochs = whole.epoch

    def growing(number, first=0):
        whole.images = images if number == 0 else dark_or_bright()[0]
        return epochs(number, first)

    whole.epoch = growing
    evaluation = fit(state, parts)
    assert evaluation.scores.figures["eval_samples"] == 48
    assert state.train_flops == 48 * small + 48 * large
    model = vmoe.load(parts.folder.checkpoints.last)
    assert model(torch.zeros(1, 3, 8, 8)).shape == model(torch.zeros(1, 3, 4, 4)).shape


def test_float16_leaves_out_a_step_that_overflows_and_lowers_its_scale(tmp_path, monkeypatch):
    config = tiny_config("train.precision=float16", "optimizer.clip_grad=1.0")
    state, parts = tiny_run(config, tmp_path)
    assert parts.precision is torch.float16
    images, labels = dark_or_bright()
    batch = images[:8], labels[:8]
    meter, network = Meter(parts, state.model), parts.layout.network(state.model)
    state.model.train()
    train_step(state, parts, network, iter([batch]), meter)
    before = {name: tensor.clone() for name, tensor in state.model.named_parameters()}
    scale = state.scaler.get_scale()
    monkeypatch.setattr(parts.task, "training_loss", lambda *_: sum(p.sum() for p in state.model.parameters()) * 1e38)
    train_step(state, parts, network, iter([batch]), meter)
    monkeypatch.undo()
    assert (state.step, state.nonfinite) == (2, 1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.model.named_parameters())
    assert state.scaler.get_scale() == scale / 2
    train_step(state, parts, network, iter([batch]), meter)
    assert not all(torch.equal(tensor, before[name]) for name, tensor in state.model.named_parameters())


def test_a_float16_run_learns_and_goes_on_with_its_scale(tmp_path):
    overrides = ("train.precision=float16", "schedule.epochs=2", "optimizer.clip_grad=1.0", "moe.gate=self")
    whole, parts = tiny_run(tiny_config(*overrides), tmp_path / "whole")
    whole.scaler.set_growth_interval(5)
    assert fit(whole, parts).scores.figures["loss"] < 0.6  # chance is 0.69

    first, parts = tiny_run(tiny_config(*overrides, "schedule.max_steps=8"), tmp_path / "first")
    first.scaler.set_growth_interval(5)
    fit(first, parts)
    second, parts = tiny_run(tiny_config(*overrides), tmp_path / "second")
    second.load(read_checkpoint(tmp_path / "first" / "checkpoints" / "last.pt"), parts.layout)
    assert second.scaler.state_dict() == first.scaler.state_dict()
    fit(second, parts)
    assert second.scaler.get_scale() == whole.scaler.get_scale() > 2**16
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name]), name


def test_clipping_sees_gradients_without_their_scale(tmp_path, monkeypatch):
    norms = []
    clip = Layout.clip
    monkeypatch.setattr(Layout, "clip", lambda *given: norms.append(given[2]) or clip(*given))
    for precision in ("float32", "float16"):
        config = tiny_config(f"train.precision={precision}", "optimizer.clip_grad=1.0", "schedule.max_steps=1")
        fit(*tiny_run(config, tmp_path / precision))
    assert norms[1] == pytest.approx(float(norms[0]), rel=0.02)


def test_tf32_is_refused_where_it_would_be_float32():
    with pytest.raises(ValueError, match=r"train\.precision is 'tf32'.*allowed: float32, or a GPU"):
        set_float32_products("tf32", ALONE.device)
    set_float32_products("float32", ALONE.device)
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.backends.cudnn.allow_tf32


def test_a_warming_average_follows_sooner(tmp_path):
    distances = {}
    for warmup in ("false", "true"):
        config = tiny_config("train.ema_decay=0.999", f"train.ema_warmup={warmup}", "schedule.epochs=2")
        state, parts = tiny_run(config, tmp_path / warmup)
        fit(state, parts)
        raw, average = state.model.state_dict(), state.ema.module.state_dict()
        distances[warmup] = sum((raw[name] - average[name]).norm() for name in raw)
    assert distances["true"] < 0.5 * distances["false"]


def test_growing_images_need_epochs():
    stored = tiny_config("data.progressive={start: 4, end: 0.5, multiple: 4}").model_dump(mode="json")
    with pytest.raises(ValueError, match=r"data\.progressive is given with schedule\.steps"):
        override_config(stored, ["schedule.steps=100", "schedule.warmup_steps=5"], "tiny")
