"""`build_optimizer`'s groups on models with MoE layers: rates by block, and what does not decay."""

import pytest
import torch

import vmoe
from vmoe.config import OptimizerConfig
from vmoe.train.optim import build_optimizer

VIT = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": 4, "num_heads": 2, "num_classes": 5}
DECAY, LAYER = 0.07, 0.5


def groups_by_name(gate, **settings):
    torch.manual_seed(0)
    model = vmoe.create_model("vit_tiny_patch16_224", {"gate": gate, "num_experts": 4, "layers": "every2"}, **VIT)
    optimizer = build_optimizer(model, OptimizerConfig(weight_decay=DECAY, **settings))
    group_of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(trained)  # each once, frozen ones never
    return {name: group_of[id(p)] for name, p in trained.items()}


GATES = ["topk", "self", "random", "aoe", "relu", "routing_free", "expert_choice", "soft"]


@pytest.mark.parametrize("gate", GATES)
def test_a_blocks_experts_and_gate_have_the_blocks_rate(gate):
    """The head comes last, at the whole rate; block 3, and the norm after it, have half, block 2 a quarter, …"""
    layers = {"head": 5, "norm": 4, "blocks.3": 4, "blocks.2": 3, "blocks.1": 2, "blocks.0": 1}
    for name, group in groups_by_name(gate, layer_decay=LAYER).items():
        layer = next((layer for part, layer in layers.items() if name.startswith(f"{part}.")), 0)
        assert group["lr_scale"] == LAYER ** (5 - layer), name


@pytest.mark.parametrize("layer_decay", [1.0, LAYER])
@pytest.mark.parametrize("gate", GATES)
def test_biases_norms_scales_and_positions_do_not_decay(gate, layer_decay):
    for name, group in groups_by_name(gate, layer_decay=layer_decay).items():
        free = name.endswith((".bias", ".scale")) or "norm" in name or name in ("cls_token", "pos_embed")
        assert group["weight_decay"] == (0 if free else DECAY), name


@pytest.mark.parametrize("layer_decay", [1.0, LAYER])
def test_experts_with_a_decay_of_their_own_keep_their_blocks_rate(layer_decay):
    plain = groups_by_name("topk", layer_decay=layer_decay)
    for name, group in groups_by_name("topk", layer_decay=layer_decay, expert_weight_decay=0.3).items():
        expert = ".experts." in name and name.endswith("weight")
        assert group["weight_decay"] == (0.3 if expert else plain[name]["weight_decay"]), name
        assert group.get("lr_scale") == plain[name].get("lr_scale"), name
