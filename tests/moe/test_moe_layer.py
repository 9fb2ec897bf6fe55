"""The layer as a whole: what holds whatever its gate and experts."""

import pytest
import torch
from small_moe import COMBINATIONS, DIM, build, one_expert, tokens
from torch import nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from vmoe.moe import AutonomyOfExperts, Glu, LowRankGlu, Mlp, MoESpec, Random, RoutingFree, SelfRouting, TopK, record

EXPERTS = [Mlp(hidden=8), Glu(hidden=8), LowRankGlu(hidden=8, rank=3)]
DETERMINISTIC = [name for name in COMBINATIONS if "uniform" not in name]
BY_CONTENT = [name for name in DETERMINISTIC if "hash" not in name]  # x alone decides, not the position
BY_TOKEN = [name for name in BY_CONTENT if not name.startswith(("expert_choice", "soft"))]  # not the other tokens


@pytest.fixture(params=COMBINATIONS)
def layer(request):
    return build(COMBINATIONS[request.param])


def run(layer, x):
    """Output and Routing of one forward."""
    with record(layer) as routings:
        y = layer(x)
    return y, routings[""]


@pytest.mark.parametrize("experts", EXPERTS, ids=lambda e: e.kind)
@pytest.mark.parametrize("gate", [TopK(k=3), SelfRouting(k=3), Random(k=3), TopK(k=3, renormalize=False)])
def test_k_equal_to_e_is_dense_mixing(gate, experts):
    """With every expert active, the weights are the softmax over all scores, renormalised or not."""
    layer = build(MoESpec(gate=gate, experts=experts, num_experts=3))
    x = tokens(1, 5, DIM)
    y, routing = run(layer, x)
    mixed = [
        sum(p * one_expert(layer, e, x_D) for e, p in enumerate(scores.softmax(0)))
        for x_D, scores in zip(x[0], routing.scores, strict=True)
    ]
    assert_close(y[0], torch.stack(mixed), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("experts", EXPERTS, ids=lambda e: e.kind)
@pytest.mark.parametrize(
    "gate", [TopK(k=1), TopK(k=1, renormalize=False), SelfRouting(k=1), Random(k=1, source="hash")]
)
def test_one_expert_is_that_expert(gate, experts):
    layer = build(MoESpec(gate=gate, experts=experts, num_experts=1))
    x = tokens(2, 3, DIM)
    expected = torch.stack([one_expert(layer, 0, x_D) for x_D in x.flatten(0, 1)])
    assert_close(layer(x).flatten(0, 1), expected, rtol=1e-4, atol=1e-5)


def test_one_routing_free_expert_is_scaled_by_its_score():
    layer = build(MoESpec(gate=RoutingFree(), experts=LowRankGlu(hidden=8, rank=4), num_experts=1))
    x = tokens(1, 4, DIM)
    y, routing = run(layer, x)
    expected = [w * one_expert(layer, 0, x_D) for w, x_D in zip(routing.weights, x[0], strict=True)]
    assert_close(y[0], torch.stack(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, DIM), (2, 3, DIM), (2, 2, 3, DIM), (1, 0, DIM), (5, DIM)])
def test_the_shape_stays(layer, shape):
    y, routing = run(layer, tokens(*shape))
    assert y.shape == shape
    assert routing.shape == shape[:-1]
    assert routing.num_tokens == routing.shape.numel()


@pytest.mark.parametrize("name", BY_CONTENT)
def test_permuted_tokens_give_permuted_outputs(name):
    layer, x = build(COMBINATIONS[name]), tokens(2, 9, DIM)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    assert_close(layer(x[:, order]), layer(x)[:, order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", BY_TOKEN)
def test_a_token_does_not_see_the_others(name):
    layer, x = build(COMBINATIONS[name]), tokens(2, 9, DIM)
    alone = torch.stack([layer(x_D[None, None])[0, 0] for x_D in x.flatten(0, 1)])
    assert_close(layer(x).flatten(0, 1), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_a_sequence_does_not_see_the_others(name):
    layer, x = build(COMBINATIONS[name]), tokens(3, 5, DIM)
    alone = torch.cat([layer(sequence[None]) for sequence in x])
    assert_close(layer(x), alone, rtol=1e-4, atol=1e-5)


def test_every_trained_parameter_gets_a_gradient(layer):
    """Also with a single token, which leaves experts idle: data-parallel training waits for every gradient."""
    layer(tokens(1, 1, DIM)).sum().backward()
    for name, parameter in layer.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_a_layer_without_an_active_pair():
    layer = build(MoESpec(gate=RoutingFree(threshold=1e6, start=1e-9), experts=LowRankGlu(hidden=8, rank=4)))
    layer.gate.scale.data.fill_(1e-3)
    x = tokens(2, 3, DIM).requires_grad_()
    y, routing = run(layer, x)
    y.sum().backward()
    assert not routing.active.any()
    assert not y.any()
    assert not x.grad.any()
    for name, parameter in layer.named_parameters():
        assert parameter.grad is not None, name
        assert not parameter.grad.any(), name


def test_the_gate_learns_from_the_task():
    for name in ["topk-mlp", "routing_free-lowrank_glu"]:
        layer = build(COMBINATIONS[name])
        layer(tokens(2, 9, DIM)).square().sum().backward()
        for parameter in layer.gate.parameters():
            assert parameter.grad.abs().max() > 0


def test_self_routing_passes_the_gradient_of_its_scores_to_x():
    """The weights depend on the last E coordinates of x only, so that is where a gradient of theirs arrives."""
    layer, x = build(COMBINATIONS["self-mlp"]), tokens(1, 6, DIM).requires_grad_()
    _, routing = run(layer, x)
    routing.weights.square().sum().backward()
    assert not x.grad[..., :-4].any()
    assert x.grad[..., -4:].any()


def test_bfloat16_autocast(layer):
    x = tokens(2, 9, DIM).requires_grad_()
    expected = run(layer.eval(), x)[0]
    with torch.autocast("cpu", torch.bfloat16):
        y, routing = run(layer, x)
    assert y.dtype == torch.bfloat16
    assert routing.weights.dtype == torch.float32
    y.float().sum().backward()
    assert x.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in layer.parameters() if p.requires_grad)
    if not isinstance(layer.gate.spec, RoutingFree):  # its scores come from products in bfloat16
        # three products, a sum over two experts: some ten roundings of 2⁻⁹ relative to the largest terms
        assert_close(y.float(), expected, rtol=0, atol=0.03 * float(expected.detach().abs().max()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types(layer, dtype):
    x = tokens(2, 5, DIM, dtype=dtype).requires_grad_()
    y, routing = run(layer.to(dtype), x)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == dtype
    assert routing.weights.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert y.isfinite().all()


@pytest.mark.parametrize("where", ["dropout_hidden", "dropout_out"])
@pytest.mark.parametrize("experts", EXPERTS, ids=lambda e: e.kind)
def test_dropout_in_training_only(where, experts):
    layer = build(MoESpec(experts=experts), **{where: 0.5})
    without = build(MoESpec(experts=experts))
    x = tokens(2, 9, DIM)
    assert not layer.train()(x).equal(without(x))
    assert layer.eval()(x).equal(without(x))


def test_output_dropout_drops_half_and_doubles_the_rest():
    layer, without = build(MoESpec(), dropout_out=0.5).train(), build(MoESpec())
    x = tokens(2, 9, DIM)
    y = layer(x)
    kept = y != 0
    assert 0.2 < kept.float().mean() < 0.8
    assert_close(y[kept], 2 * without(x)[kept])


def test_flops_are_those_of_the_counter(layer):
    x = tokens(2, 9, DIM)
    with FlopCounterMode(display=False) as counter:
        _, routing = run(layer, x)
    pairs = int(routing.count_rows())
    assert counter.get_total_flops() == 18 * layer.flops_per_token + pairs * layer.flops_per_pair


@pytest.mark.parametrize(
    ("gate", "experts", "per_pair", "shared"),
    [
        (TopK(), Mlp(hidden=8), 2 * 12 * 8 + 8 + 12, 0),  # two products and their biases
        (TopK(), Glu(hidden=8), 3 * 12 * 8, 0),
        (TopK(), LowRankGlu(hidden=8, rank=3), 3 * 12 + 3 * 8 + 2 * 12 * 8, 0),
        # A serves every token, active or not, since experts are scored by it
        (AutonomyOfExperts(), LowRankGlu(hidden=8, rank=3), 3 * 8 + 2 * 12 * 8, 3 * 12),
    ],
)
def test_parameters_of_a_pair_by_hand(gate, experts, per_pair, shared):
    layer = build(MoESpec(gate=gate, experts=experts, num_experts=4))
    assert layer.params_per_pair == per_pair
    assert sum(p.numel() for p in layer.experts.parameters()) == 4 * (per_pair + shared)


def test_no_experts_without_a_bias_unless_the_host_has_one():
    layer = build(MoESpec(experts=Mlp(hidden=8)), bias=False)
    assert [name for name, _ in layer.experts.named_parameters()] == ["fc1.weight", "fc2.weight"]
    assert isinstance(layer.experts.activation, nn.GELU)


@pytest.mark.parametrize("experts", EXPERTS, ids=lambda e: e.kind)
def test_experts_start_with_the_deviations_of_the_host(experts):
    layer = build(MoESpec(experts=experts, num_experts=16), dim=64, std_in=0.1, std_out=0.4)
    weights = dict(layer.experts.named_parameters())
    reads, writes = {"mlp": ("fc1", "fc2"), "glu": ("up", "down"), "lowrank_glu": ("up", "down")}[experts.kind]
    # 16 · 64 · 8 = 8192 draws: the deviation is known to 1/√(2 · 8192) = 0.8 %
    assert float(weights[f"{reads}.weight"].detach().std()) == pytest.approx(0.1, rel=0.04)
    assert float(weights[f"{writes}.weight"].detach().std()) == pytest.approx(0.4, rel=0.04)
    if experts.kind == "glu":
        assert float(weights["gate.weight"].detach().std()) == pytest.approx(0.1, rel=0.04)


def test_the_product_of_the_low_rank_gate_has_the_deviation_of_a_dense_one():
    layer = build(MoESpec(experts=LowRankGlu(hidden=64, rank=16), num_experts=8), dim=64, std_in=0.1)
    product = layer.experts.gate_up.weight @ layer.experts.gate_down.weight
    # Each entry sums 16 terms of deviation 0.1 · (1/4); √16 · 0.1/4 = 0.1. Entries share factors, hence 10 %.
    assert float(product.detach().std()) == pytest.approx(0.1, rel=0.1)
