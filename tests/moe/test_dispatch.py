"""Every dispatch path and the experts against a loop over tokens and experts, outputs and every gradient."""

import pytest
import torch
from small_moe import DIM, build, one_expert, tokens
from torch.testing import assert_close

from vmoe.moe import Glu, LowRankGlu, Mlp, MoESpec, TopK
from vmoe.moe.dispatch import PATHS
from vmoe.moe.routing import route_threshold, route_top_k

EXPERTS = {"mlp": Mlp(hidden=8), "glu": Glu(hidden=8), "lowrank_glu": LowRankGlu(hidden=8, rank=3)}
ROUTES = {
    "one": lambda s: route_top_k(s, 1, torch.Size([len(s)]), weights="all"),
    "two": lambda s: route_top_k(s, 2, torch.Size([len(s)]), weights="selected"),
    "every": lambda s: route_top_k(s, 4, torch.Size([len(s)]), weights="selected"),
    "threshold": lambda s: route_threshold(s, 0.5, torch.Size([len(s)])),
    "one expert idle": lambda s: route_threshold(s - 100 * torch.eye(4, dtype=s.dtype)[2], 0.1, torch.Size([len(s)])),
    "nothing": lambda s: route_threshold(s, 1e6, torch.Size([len(s)])),
}


def prepare(experts, num_tokens=7):
    layer = build(MoESpec(gate=TopK(), experts=EXPERTS[experts], num_experts=4)).double()
    x = tokens(num_tokens, DIM, dtype=torch.float64).requires_grad_()
    scores = torch.randn(num_tokens, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return layer, x, scores.requires_grad_()


def brute_force(layer, x, routing):
    """``y_t = Σ_{e active for t} w_{t,e} · Expert_e(x_t)``."""
    rows = []
    for t in range(len(x)):
        row = torch.zeros_like(x[t])
        for e in range(routing.num_experts):
            if routing.active[t, e]:
                row = row + routing.weights[t, e] * one_expert(layer, e, x[t])
        rows.append(row)
    return torch.stack(rows)


def gradients(y, x, scores, layer):
    leaves = [x, scores, *layer.experts.parameters()]
    probe = torch.randn(y.shape, generator=torch.Generator().manual_seed(3), dtype=y.dtype)
    found = torch.autograd.grad((y * probe).sum() + 0 * scores.sum(), leaves, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(leaf) if grad is None else grad for leaf, grad in zip(leaves, found, strict=True)]


@pytest.fixture(params=["reference", "grouped"])
def dispatch(request):
    return PATHS[request.param]


def features_of(layer, x, ahead):
    """Features of every token, for the experts that have some, if they are to be computed ahead."""
    return layer.experts.features(x) if ahead and layer.experts.feature_layers() else None


@pytest.mark.parametrize("ahead", [True, False])
@pytest.mark.parametrize("experts", EXPERTS)
@pytest.mark.parametrize("route", ROUTES)
def test_a_path_equals_a_loop_over_pairs(dispatch, experts, route, ahead):
    layer, x, scores = prepare(experts)
    routing = ROUTES[route](scores)
    y = dispatch(x, features_of(layer, x, ahead), routing, layer.experts)
    expected = brute_force(layer, x, routing)
    assert_close(y, expected, rtol=1e-10, atol=1e-12)
    for got, wanted in zip(gradients(y, x, scores, layer), gradients(expected, x, scores, layer), strict=True):
        assert_close(got, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("experts", EXPERTS)
@pytest.mark.parametrize("route", ["two", "threshold"])
def test_gradcheck(dispatch, experts, route):
    layer, x, scores = prepare(experts, num_tokens=3)

    def function(x, scores):
        return dispatch(x, features_of(layer, x, True), ROUTES[route](scores), layer.experts)

    assert torch.autograd.gradcheck(function, (x, scores))


@pytest.mark.parametrize("experts", EXPERTS)
@pytest.mark.parametrize("route", ["one expert idle", "nothing"])
def test_an_idle_expert_gets_gradients_of_zero(dispatch, experts, route):
    layer, x, scores = prepare(experts)
    dispatch(x, features_of(layer, x, False), ROUTES[route](scores), layer.experts).sum().backward()
    idle = [2] if route == "one expert idle" else [0, 1, 2, 3]
    for parameter in layer.experts.parameters():
        assert parameter.grad is not None
        for e in range(4):
            assert bool(parameter.grad[e].any()) == (e not in idle)
