"""Equal active compute: the layer's measured FLOPs against the host MLP's, within what rounding widths allows."""

import pytest
import torch
from small_moe import build, tokens
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vmoe.moe import AutonomyOfExperts, Glu, LowRankGlu, Mlp, MoESpec, Random, RoutingFree, TopK
from vmoe.moe.widths import MULTIPLE, Budget, expert_budget, expert_widths, round_width

SIZES = [(dim, num_experts, k) for dim in (48, 96, 192) for num_experts, k in [(1, 1), (4, 1), (8, 2), (8, 3), (6, 6)]]
HALF = MULTIPLE / 2  # the farthest that rounding moves a width


def measured(module, dim, num_tokens=3):
    with FlopCounterMode(display=False) as counter:
        module(tokens(1, num_tokens, dim))
    return counter.get_total_flops() / num_tokens


def host(dim):
    """The dense MLP: 8 D² multiply-adds a token."""
    return nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))


def hash_routed(experts, num_experts, k):
    """A gate that costs nothing, so that the experts' own compute is measured."""
    return MoESpec(gate=Random(k=k, source="hash"), experts=experts, num_experts=num_experts)


@pytest.mark.parametrize(("dim", "num_experts", "k"), SIZES)
@pytest.mark.parametrize(("experts", "products"), [(Mlp(), 2), (Glu(), 3)], ids=["mlp", "glu"])
def test_mlp_and_glu_match_the_host(experts, products, dim, num_experts, k):
    layer = build(hash_routed(experts, num_experts, k), dim, 4 * dim)
    # F is off by at most HALF, in each of the products' 2·D·F FLOPs of each of the k experts
    tolerance = k * products * 2 * dim * HALF
    assert measured(layer, dim) == pytest.approx(measured(host(dim), dim), abs=tolerance)


@pytest.mark.parametrize(("dim", "num_experts", "k"), SIZES)
def test_lowrank_glu_matches_the_host(dim, num_experts, k):
    layer = build(hash_routed(LowRankGlu(), num_experts, k), dim, 4 * dim)
    _, rank, hidden = layer.experts.gate_up.weight.mT.shape
    rank_off = HALF * (1 + k / num_experts)  # R is rounded from ρ times the rounded F
    # k·(D·R + 2·D·F + R·F) multiply-adds, changed by HALF in F and rank_off in R
    change = k * dim * rank_off + k * (2 * dim * HALF + (rank + rank_off) * HALF + hidden * rank_off)
    assert measured(layer, dim) == pytest.approx(measured(host(dim), dim), abs=2 * change)


@pytest.mark.parametrize(("dim", "num_experts", "k"), SIZES)
@pytest.mark.parametrize("rank", [2, 8])
def test_lowrank_glu_of_a_given_rank_matches_the_host(dim, num_experts, k, rank):
    layer = build(hash_routed(LowRankGlu(rank=rank), num_experts, k), dim, 4 * dim)
    assert layer.experts.gate_down.weight.shape[1] == rank
    assert measured(layer, dim) == pytest.approx(measured(host(dim), dim), abs=2 * k * (2 * dim + rank) * HALF)


def test_the_router_costs_its_one_product():
    spec = MoESpec(gate=TopK(k=2), num_experts=8)
    free = hash_routed(Mlp(), 8, 2)
    assert measured(build(spec, 96, 384), 96) - measured(build(free, 96, 384), 96) == 2 * 96 * 8


def test_routing_free_widths_are_those_of_its_target_density():
    """ρ∞·E = 0.25 · 8 = 2 experts: the widths of Autonomy-of-Experts with k = 2."""
    free = build(MoESpec(gate=RoutingFree(target_density=0.25), num_experts=8), 96, 384)
    fixed = build(MoESpec(gate=AutonomyOfExperts(k=2), num_experts=8), 96, 384)
    assert free.experts.gate_up.weight.shape == fixed.experts.gate_up.weight.shape


def test_widths_by_hand():
    def widths(spec, active=2.0, scored=True, shared=0):
        budget = expert_budget(active, num_experts=8, shared_experts=shared, scores_features=scored)
        return expert_widths(spec, dim=96, host_hidden=384, budget=budget)

    assert widths(Mlp()) == (192, 0)  # 384 / 2
    assert widths(Mlp(), active=1.0) == (384, 0)
    assert widths(Glu()) == (128, 0)  # 2 · 384 / (3 · 2)
    assert widths(Mlp(hidden="host")) == (384, 0)
    assert widths(Glu(hidden=40)) == (40, 0)
    # 288 F + F²/4 = 36,864 has F = 2 · (√(288² + 36,864) − 288) = 2 · (346.13 − 288) = 116.3 → 120; R = 30 → 32
    assert widths(LowRankGlu()) == (120, 32)
    # the features cost 8 · 96 · 8 = 6,144 of 73,728; (73,728 − 6,144) / (2 · (8 + 192)) = 168.96 → 168
    assert widths(LowRankGlu(rank=8)) == (168, 8)
    assert widths(LowRankGlu(hidden="host")) == (384, 96)  # ρ · F
    # features of the 2 active experts alone: 2 · (96 · F/4 + 192 F + F²/4) = 73,728, that is F² + 864 F = 147,456,
    # F = √(432² + 147,456) − 432 = 145.8 → 144; R = 36 → 40 (a tie goes to the even multiple of 8)
    assert widths(LowRankGlu(), scored=False) == (144, 32)
    # one shared expert beside the two: 384 / 3, 2 · 384 / 9 = 85.3 → 88
    assert widths(Mlp(), shared=1) == (128, 0)
    assert widths(Glu(), shared=1) == (88, 0)
    # 9 · 96 · F/4 + 3 · (192 F + F²/4) = 73,728, that is F² + 1,056 F = 98,304: F = √(528² + 98,304) − 528 = 86.1 → 88
    assert widths(LowRankGlu(), shared=1) == (88, 24)  # R = 22 → 24


def test_a_rank_that_leaves_nothing_for_the_experts():
    # the gate products cost 8 · 96 · R; the host 2 · 96 · 384, so R < 96
    with pytest.raises(ValueError, match=r"experts.rank is 96; allowed with hidden: match: less than 96"):
        expert_widths(LowRankGlu(rank=96), dim=96, host_hidden=384, budget=Budget(pairs=2, features=8, share=0.25))
    widths = expert_widths(LowRankGlu(rank=95), dim=96, host_hidden=384, budget=Budget(pairs=2, features=8, share=0.25))
    assert widths.hidden >= MULTIPLE


@pytest.mark.parametrize(("width", "rounded"), [(0.1, 8), (11.9, 8), (12.1, 16), (16, 16), (1000, 1000), (1003, 1000)])
def test_rounding(width, rounded):
    assert round_width(width) == rounded


def test_all_widths_are_whole_multiples():
    torch.manual_seed(0)
    for experts in [Mlp(), Glu(), LowRankGlu()]:
        budget = Budget(pairs=3, features=7, share=3 / 7)
        hidden, rank = expert_widths(experts, dim=100, host_hidden=400, budget=budget)
        assert hidden % MULTIPLE == rank % MULTIPLE == 0
