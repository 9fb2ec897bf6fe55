"""timm's own machinery on models with MoE layers: checkpointing, parameter groups, moving averages."""

import copy

import pytest
import torch
from hosts import GATES, tiny_vit, train_step
from timm.models import group_parameters
from timm.optim import create_optimizer_v2, param_groups_layer_decay, param_groups_weight_decay
from timm.utils import ModelEmaV3
from torch.testing import assert_close

import vmoe
from vmoe.backbones.timm import add_moe, enable_checkpointing
from vmoe.moe import Mlp, MoESpec, Random, RoutingFree, TopK

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([1, 4])


def moe_vit(gate, **kwargs):
    return add_moe(tiny_vit(**kwargs), MoESpec(gate=gate, layers="all"))


@pytest.mark.parametrize("gate", GATES.values(), ids=GATES)
def test_gradient_checkpointing_changes_neither_loss_nor_gradients(gate):
    model = moe_vit(gate, proj_drop_rate=0.1, drop_path_rate=0.1)
    expected = train_step(model, IMAGES, LABELS)
    enable_checkpointing(model)
    assert_close(train_step(model, IMAGES, LABELS)._asdict(), expected._asdict(), equal_nan=True)


def test_models_that_cannot_be_checkpointed_say_why(monkeypatch):
    with pytest.raises(ValueError, match=r"model.grad_checkpointing is true, but Linear has none; allowed: false"):
        enable_checkpointing(torch.nn.Linear(2, 2))
    monkeypatch.setattr("vmoe.backbones.timm.use_reentrant_ckpt", lambda: True)
    with pytest.raises(ValueError, match="reentrant checkpointing, which loses the gradient of balance losses"):
        enable_checkpointing(moe_vit(TopK()))


@pytest.mark.parametrize("gate", GATES.values(), ids=GATES)
@pytest.mark.parametrize("coarse", [False, True])
def test_moe_parameters_are_grouped_with_their_block(gate, coarse):
    model = moe_vit(gate)
    layer_of = group_parameters(model, model.group_matcher(coarse=coarse), reverse=True)
    for i in range(4):
        names = [name for name, _ in model.named_parameters() if name.startswith(f"blocks.{i}.mlp")]
        assert names
        assert {layer_of[name] for name in names} == {layer_of[f"blocks.{i}.norm1.weight"]}


@pytest.mark.parametrize("gate", GATES.values(), ids=GATES)
def test_layer_decay_gives_a_block_one_scale(gate):
    model = moe_vit(gate)
    groups = param_groups_layer_decay(model, layer_decay=0.5, no_weight_decay_list=model.no_weight_decay())
    scale_of = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    for i in range(4):
        trained = [p for name, p in model.named_parameters() if name.startswith(f"blocks.{i}.") and p.requires_grad]
        # norm and head come after block 3: 0.5¹, and every block before it halves
        assert {scale_of[id(p)] for p in trained} == {0.5 ** (4 - i)}


GROUPINGS = {"weight decay": param_groups_weight_decay, "layer decay": param_groups_layer_decay}


@pytest.mark.parametrize("grouping", GROUPINGS)
@pytest.mark.parametrize("gate", GATES.values(), ids=GATES)
def test_biases_and_gate_scales_do_not_decay_and_weights_do(gate, grouping):
    model = moe_vit(gate)
    groups = GROUPINGS[grouping](model, weight_decay=0.1, no_weight_decay_list=model.no_weight_decay())
    decay_of = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    decays = {name: decay_of[id(p)] for name, p in model.named_parameters() if ".mlp." in name and p.requires_grad}
    for name, decay in decays.items():
        assert decay == (0.1 if name.endswith("weight") and ".norm." not in name else 0), name
    kinds = {name.split(".mlp.")[1] for name in decays}
    of_gate = {
        "topk": {"gate.router.weight"},
        "relu": {"gate.router.weight"},
        "expert_choice": {"gate.router.weight"},
        "routing_free": {"gate.scale", "gate.bias"},
        "soft": {"gate.weight", "gate.scale"},
        "self": {"norm.weight", "norm.bias"} if gate == GATES["self, residual"] else set(),
    }.get(gate.kind, set())
    low_rank = {f"experts.{name}.weight" for name in ("gate_down", "gate_up", "up", "down")}
    plain = {f"experts.{layer}.{name}" for layer in ("fc1", "fc2") for name in ("weight", "bias")}
    assert kinds == of_gate | (low_rank if gate.SCORES_FEATURES else plain)


def test_what_the_host_exempts_stays_exempt():
    dense = tiny_vit()
    own = dense.no_weight_decay()
    model = add_moe(copy.deepcopy(dense), MoESpec(layers=(2,)))
    assert {"pos_embed", "cls_token"} <= own
    assert model.no_weight_decay() == own | {"blocks.2.mlp.experts.fc1.bias", "blocks.2.mlp.experts.fc2.bias"}
    model.no_weight_decay().clear()
    assert model.no_weight_decay() > own  # what it returns is the caller's


@pytest.mark.parametrize("layer_decay", [None, 0.7])
def test_an_optimizer_step_trains_every_moe_parameter(layer_decay):
    for gate in (TopK(balance=1.0), RoutingFree()):
        model = moe_vit(gate)
        optimizer = create_optimizer_v2(model, opt="adamw", lr=0.1, layer_decay=layer_decay)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        train_step(model, IMAGES, LABELS)
        optimizer.step()
        for name, parameter in model.named_parameters():
            if ".mlp." in name:
                assert not parameter.equal(before[name]), name


def test_a_frozen_router_is_in_no_group():
    model = moe_vit(Random(source="fixed"))
    groups = param_groups_weight_decay(model, no_weight_decay_list=model.no_weight_decay())
    trained = {id(p) for group in groups for p in group["params"]}
    for block in model.blocks:
        assert id(block.mlp.gate.router.weight) not in trained


@pytest.mark.parametrize("gate", GATES.values(), ids=GATES)
def test_a_moving_average_follows_the_model_and_keeps_the_hash(gate):
    """decay ½ from w₀ to w₁ gives their mean; integers, such as a hash's salt, are copied."""
    model = moe_vit(gate)
    train_step(model, IMAGES, LABELS)
    ema = ModelEmaV3(model, decay=0.5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    with vmoe.record(model):
        model(IMAGES)
        ema.update(model)
    for name, value in ema.module.state_dict().items():
        assert_close(value, before[name] + 0.5 if value.is_floating_point() else before[name])
    with vmoe.record(ema.module) as routings:
        assert ema.module.eval()(IMAGES).isfinite().all()
    assert len(routings) == 4


def test_a_layer_of_a_pretrained_width_survives_autocast():
    model = add_moe(tiny_vit(), MoESpec(gate=TopK(), experts=Mlp(hidden="host"), init="upcycle"))
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(IMAGES)
    torch.nn.functional.cross_entropy(logits.float(), LABELS).backward()
    assert logits.dtype == torch.bfloat16
    assert all(p.grad.isfinite().all() for p in model.parameters())
