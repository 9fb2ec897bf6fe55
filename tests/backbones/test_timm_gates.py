"""What gates ask of their host: norms, tokens, layer numbers; and how all of them start."""

import pytest
import torch
from hosts import GATES, TINY, tiny_vit
from torch import nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

import vmoe
from vmoe.backbones.timm import add_moe
from vmoe.moe import (
    Dense,
    ExpertChoice,
    Glu,
    LowRankGlu,
    Mlp,
    MoESpec,
    RoutingFree,
    SelfRouting,
    Soft,
    TopK,
    moe_layers,
)

IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def forward(model):
    with vmoe.record(model) as routings, torch.no_grad():
        model.eval()(IMAGES)
    return routings


def flops(model):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(IMAGES)
    return counter.get_total_flops()


# --- the start -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Mlp(), Glu(), LowRankGlu()], ids=lambda e: e.kind)
def test_one_seed_gives_the_same_experts_whatever_the_gate(kind):
    gates = [gate for gate in GATES.values() if not gate.SCORES_FEATURES or isinstance(kind, LowRankGlu)]
    gates = [gate for gate in gates if not isinstance(gate, Soft)]  # slots, which leave another width
    models = [add_moe(tiny_vit(), MoESpec(gate=gate, experts=widths_of(kind), layers="all")) for gate in gates]
    first = [layer.experts.state_dict() for _, layer in moe_layers(models[0])]
    assert not first[0][next(iter(first[0]))].equal(first[1][next(iter(first[1]))])  # another layer's differ
    for model in models[1:]:
        assert_close([layer.experts.state_dict() for _, layer in moe_layers(model)], first, rtol=0, atol=0)


def widths_of(experts):
    """The same experts with widths that do not depend on the gate."""
    return type(experts)(hidden=16, **({"rank": 8} if isinstance(experts, LowRankGlu) else {}))


@pytest.mark.parametrize("gain", [0.05, 1.0, 7.0])
@pytest.mark.parametrize("shift", [0.0, 2.0])
@pytest.mark.parametrize("std", [0.002, 0.2])
def test_routing_free_starts_dense_behind_any_norm(gain, shift, std):
    """Gains and shifts of the norm before the MLP, as trained hosts have them, are taken into account."""
    host = tiny_vit()
    generator = torch.Generator().manual_seed(1)
    for block in host.blocks:
        nn.init.normal_(block.mlp.fc1.weight, std=std, generator=generator)
        nn.init.normal_(block.norm2.weight, mean=gain, std=gain / 4, generator=generator)
        nn.init.normal_(block.norm2.bias, std=shift * gain, generator=generator)
    for routing in forward(add_moe(host, MoESpec(gate=RoutingFree(), layers="all"))).values():
        assert routing.active.float().mean() >= 0.9


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("vit_tiny_patch16_224", TINY),
        ("vit_tiny_patch16_224", TINY | {"embed_dim": 192, "init_values": 1e-5}),
        ("vit_tiny_patch16_224", TINY | {"weight_init": "jax"}),
        ("deit3_small_patch16_224", TINY),
        ("beit_base_patch16_224", TINY),
        ("vit_base_patch16_siglip_224", TINY),
    ],
)
@pytest.mark.parametrize("experts", [LowRankGlu(), LowRankGlu(hidden=40, rank=1), LowRankGlu(hidden=8, rank=64)])
def test_routing_free_starts_dense_in_any_host(name, kwargs, experts):
    torch.manual_seed(0)
    moe = MoESpec(gate=RoutingFree(), experts=experts, layers="all")
    for routing in forward(vmoe.create_model(name, moe, num_classes=5, **kwargs)).values():
        assert routing.active.float().mean() >= 0.9


# --- what a gate reads -----------------------------------------------------------------------------------


def test_self_routing_by_the_residual_reads_what_the_norm_reads():
    host = tiny_vit()
    nn.init.normal_(host.blocks[1].norm2.bias, std=1.0)
    host_state = {name: value.clone() for name, value in host.state_dict().items()}
    seen = {}
    host.blocks[1].norm2.register_forward_hook(lambda _, inputs, output: seen.update(before=inputs[0], after=output))
    model = add_moe(host, MoESpec(gate=SelfRouting(input="residual"), layers=(1,)))
    layer = model.blocks[1].mlp
    assert_close(forward(model)["blocks.1.mlp"].scores, seen["before"].flatten(0, 1)[:, -8:])
    layer.gate.spec = SelfRouting()
    assert isinstance(model.blocks[1].norm2, nn.Identity)
    assert layer.norm.bias.equal(host_state["blocks.1.norm2.bias"])  # moved, not lost


def test_the_experts_see_the_same_whatever_self_routing_reads():
    """With k = E and equal experts the gate makes no difference, so the two models must agree."""
    outputs = []
    for read in ("normed", "residual"):
        spec = MoESpec(gate=SelfRouting(k=8, input=read), experts=Mlp(hidden="host"), init="upcycle", layers="all")
        outputs.append(add_moe(tiny_vit(), spec).eval()(IMAGES))
    assert_close(outputs[1], outputs[0])
    assert_close(outputs[0], tiny_vit().eval()(IMAGES))


def test_the_residual_needs_a_norm_that_is_known():
    with pytest.raises(ValueError, match=r"gate.input is 'residual'; allowed: normed"):
        vmoe.create_model(
            "swin_tiny_patch4_window7_224",
            {"gate": {"kind": "self", "input": "residual"}},
            img_size=32, embed_dim=12, depths=(1, 2), num_heads=(2, 2), window_size=4,
        )  # fmt: skip


def test_offsets_go_to_the_layers_in_order():
    model = add_moe(tiny_vit(), MoESpec(gate=SelfRouting(offset=(0, 5, 16)), layers=(0, 1, 3)))
    assert [layer.gate.offset for _, layer in moe_layers(model)] == [0, 5, 16]
    with pytest.raises(ValueError, match=r"gate.offset is \[0, 5\]; allowed: 3 numbers, one for each MoE layer"):
        add_moe(tiny_vit(), MoESpec(gate=SelfRouting(offset=(0, 5)), layers=(0, 1, 3)))


def test_slots_follow_the_tokens_of_an_image():
    # 16 patches and the class token: 17 / 8 = 2.1 slots an expert; 16 slots cost 16/17 of the host's tokens
    model = add_moe(tiny_vit(), MoESpec(gate=Soft()))
    assert {len(layer.gate.weight) for _, layer in moe_layers(model)} == {8 * 2}
    assert model.blocks[1].mlp.experts.fc1.weight.shape[1] == 104  # 96 · 17/16 = 102
    given = add_moe(tiny_vit(), MoESpec(gate=Soft(slots=3)))
    assert {len(layer.gate.weight) for _, layer in moe_layers(given)} == {8 * 3}


def test_slots_of_a_host_with_fewer_tokens_in_later_stages():
    moe = {"gate": {"kind": "soft"}, "num_experts": 4, "layers": "all"}
    small = {"img_size": 32, "embed_dim": 12, "depths": (1, 2), "num_heads": (2, 2), "window_size": 4}
    model = vmoe.create_model("swin_tiny_patch4_window7_224", moe, num_classes=5, **small)
    # 8 × 8 tokens in the first stage, 4 × 4 in the second, over 4 experts
    assert [len(layer.gate.weight) // 4 for _, layer in moe_layers(model)] == [16, 4, 4]


def test_expert_choice_does_not_depend_on_the_batch():
    model = add_moe(tiny_vit(), MoESpec(gate=ExpertChoice(), layers="all")).eval()
    alone = torch.cat([model(image[None]) for image in IMAGES])
    assert_close(model(IMAGES), alone)
    # 17 tokens, factor 2 of 8 experts: each takes round(4.25) = 4 of an image
    assert forward(model)["blocks.0.mlp"].active.view(4, 17, 8).sum(1).unique().tolist() == [4]


# --- dense rows and shared experts -----------------------------------------------------------------------


@pytest.mark.parametrize("experts", [Glu(), Mlp(), LowRankGlu()], ids=lambda e: e.kind)
def test_a_dense_row_costs_what_the_host_costs(experts):
    """Widths are multiples of 8: F = 2H/3 = 64 of 96 exactly for GLU; for low rank 3·24·F + F² = 2·24·96, F = 40."""
    host = tiny_vit()
    dense = add_moe(tiny_vit(), MoESpec(gate=Dense(), experts=experts, layers="all"))
    assert list(moe_layers(dense)) == []
    rounding = 0 if not isinstance(experts, LowRankGlu) else 4 * 17 * 4 * 2 * (3 * 24 + 2 * 40) * 4
    assert abs(flops(dense) - flops(host)) <= rounding
    assert {"blocks.0.mlp.experts.fc1.bias"} <= dense.no_weight_decay() or not isinstance(experts, Mlp)


def test_a_dense_row_upcycled_is_the_host():
    spec = MoESpec(gate=Dense(), experts=Mlp(), init="upcycle", layers="all")
    assert_close(add_moe(tiny_vit(), spec).eval()(IMAGES), tiny_vit().eval()(IMAGES))


@pytest.mark.parametrize("experts", [Mlp(), Glu()], ids=lambda e: e.kind)
def test_shared_experts_are_paid_for_by_narrower_ones(experts):
    """H/(k + 1) = 32 for k = 2, and 2H/(3·3) = 21.3 → 24: the sum of active FLOPs stays, but for the router's."""
    model = add_moe(tiny_vit(), MoESpec(gate=TopK(k=2), experts=experts, shared_experts=1, layers="all"))
    router = 4 * 17 * 4 * 2 * 24 * 8
    rounding = 0 if isinstance(experts, Mlp) else 4 * 17 * 4 * 2 * 3 * 24 * 3 * 3
    assert abs(flops(model) - router - flops(tiny_vit())) <= rounding
    names = {name for name, _ in model.named_parameters() if ".shared." in name and name.endswith("bias")}
    assert names <= model.no_weight_decay()
