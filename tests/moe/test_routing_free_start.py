"""Routing-Free starts near density 1, whatever the width, rank, norm and initialisation."""

import pytest
import torch
from small_moe import build, tokens

from vmoe.moe import LowRankGlu, MoESpec, RoutingFree, record

NORMS = ["l1", "l2", "linf"]


def first_routing(dim=64, rank=16, num_experts=6, std=0.02, num_tokens=400, **gate):
    spec = MoESpec(gate=RoutingFree(**gate), experts=LowRankGlu(hidden=8, rank=rank), num_experts=num_experts)
    layer = build(spec, dim, 4 * dim, std_in=std, std_out=std)
    with record(layer) as routings, torch.no_grad():
        layer(tokens(1, num_tokens, dim))
    return routings[""]


def density(**values):
    return float(first_routing(**values).active.float().mean())


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("rank", [1, 2, 3, 8, 64])
@pytest.mark.parametrize("dim", [24, 192])
def test_dense_at_any_rank_and_width(dim, rank, norm):
    assert density(dim=dim, rank=rank, norm=norm) >= 0.9


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("std", [0.002, 0.02, 0.2])
def test_dense_at_any_initialisation(std, norm):
    assert density(std=std, norm=norm) >= 0.9


@pytest.mark.parametrize("num_experts", [1, 2, 24])
def test_every_expert_is_dense(num_experts):
    share_E = first_routing(num_experts=num_experts).active.float().mean(0)
    assert share_E.shape == (num_experts,)
    assert share_E.min() >= 0.9


@pytest.mark.parametrize(("threshold", "temperature"), [(1.0, 1.0), (0.5, 1.0), (1.0, 4.0), (30.0, 2.0)])
def test_dense_at_any_threshold(threshold, temperature):
    assert density(threshold=threshold, temperature=temperature) >= 0.9


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("start", [1.5, 2.0, 5.0])
def test_the_mean_score_is_start_thresholds(start, norm):
    """At a rank where `start` alone decides; few tokens and experts leave an error of some percent."""
    routing = first_routing(start=start, norm=norm, rank=32, dim=192, threshold=3.0, temperature=2.0)
    assert float(routing.scores.mean()) == pytest.approx(start * 1.5, rel=0.05)


def test_without_the_calibration_nothing_would_fire():
    """N(0, 0.02), D = 192, R = 8: the mean norm is about 0.02 · √192 · √8 = 0.78, below the threshold."""
    spec = MoESpec(gate=RoutingFree(), experts=LowRankGlu(hidden=8, rank=8))
    layer = build(spec, 192, 768, std_in=0.02)
    layer.gate.scale.data.fill_(1)
    x = tokens(400, 192)
    scores = layer.gate(x, layer.experts.features(x), torch.Size([400])).scores
    assert scores.mean().item() == pytest.approx(0.78, rel=0.05)
    assert float((scores >= 1).float().mean()) < 0.2


def test_calibration_draws_nothing_from_the_global_generator():
    """So that hosts of one seed are equal whatever the gate."""
    layer = build(MoESpec(gate=RoutingFree()))
    before = torch.get_rng_state()
    layer.gate.calibrate(layer.experts.gate_down.weight)
    assert torch.get_rng_state().equal(before)
