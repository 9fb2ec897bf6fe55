"""Routings against the formulas written out in float64, one token at a time."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from vmoe.moe import SelfRouting, TopK
from vmoe.moe.build import build_gate
from vmoe.moe.routing import Routing, route_threshold, route_top_k

sizes = st.integers(1, 9).flatmap(lambda e: st.tuples(st.integers(1, 7), st.just(e), st.integers(1, e)))


def scores(num_tokens, num_experts, seed, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(num_tokens, num_experts, dtype=torch.float64, generator=generator)


def top_k_by_hand(row, k, over):
    """Weights of one token from its float64 scores."""
    best = sorted(range(len(row)), key=lambda e: -row[e])[:k]
    total = sum(math.exp(row[e] - max(row)) for e in (best if over == "selected" else range(len(row))))
    return [math.exp(row[e] - max(row)) / total if e in best else 0.0 for e in range(len(row))]


@settings(max_examples=60, deadline=None)
@given(sizes, st.integers(0, 2**31), st.sampled_from(["selected", "all"]), st.sampled_from([0.02, 1.0, 30.0]))
def test_top_k_weights(size, seed, over, scale):
    num_tokens, num_experts, k = size
    scores_TE = scores(num_tokens, num_experts, seed, scale)
    routing = route_top_k(scores_TE, k, torch.Size([num_tokens]), weights=over)
    expected = torch.tensor([top_k_by_hand(row, k, over) for row in scores_TE.tolist()], dtype=torch.float64)
    assert_close(routing.weights, expected, rtol=1e-10, atol=1e-300)
    assert routing.active.equal(expected > 0)


@settings(max_examples=60, deadline=None)
@given(sizes, st.integers(0, 2**31), st.booleans(), st.sampled_from(["topk", "self"]))
def test_gates_in_float32_agree_with_float64(size, seed, renormalize, kind):
    num_tokens, num_experts, k = size
    dim = num_experts + 3
    torch.manual_seed(seed)
    gate = build_gate({"topk": TopK, "self": SelfRouting}[kind](k=k, renormalize=renormalize), dim, num_experts)
    x = torch.randn(num_tokens, dim, dtype=torch.float64).float().double()
    if kind == "topk":
        with torch.no_grad():
            gate.router.weight.mul_(20)  # scores of order 1
        scores_TE = x @ gate.router.weight.double().T
    else:
        scores_TE = x[:, -num_experts:]
    routing = gate(x.float(), None, torch.Size([num_tokens]))
    over = "selected" if renormalize else "all"
    for t, row in enumerate(scores_TE.tolist()):
        ranked = sorted(row, reverse=True)
        if k < num_experts and ranked[k - 1] - ranked[k] < 1e-5:
            continue  # a tie in float32 may go either way
        expected = torch.tensor(top_k_by_hand(row, k, over))
        assert_close(routing.weights[t], expected, rtol=1e-5, atol=1e-7)


@settings(max_examples=40, deadline=None)
@given(sizes, st.integers(0, 2**31), st.floats(0.01, 3))
def test_threshold_weights(size, seed, threshold):
    num_tokens, num_experts, _ = size
    scores_TE = scores(num_tokens, num_experts, seed)
    routing = route_threshold(scores_TE, threshold, torch.Size([num_tokens]))
    for t in range(num_tokens):
        for e in range(num_experts):
            score = float(scores_TE[t, e])
            assert bool(routing.active[t, e]) == (score >= threshold)
            assert float(routing.weights[t, e]) == (score if score >= threshold else 0)


@pytest.mark.parametrize("over", ["selected", "all"])
def test_the_gradient_of_top_k_is_that_of_its_formula(over):
    scores_TE = scores(5, 4, 0, scale=2).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda s: route_top_k(s, 2, torch.Size([5]), weights=over).weights, scores_TE, eps=1e-6
    )


def test_the_gradient_of_a_threshold_is_one_where_active():
    scores_TE = torch.tensor([[0.5, 1.0], [2.0, -1.0]], requires_grad=True)
    route_threshold(scores_TE, 1.0, torch.Size([2])).weights.sum().backward()
    assert scores_TE.grad.tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize("over", ["selected", "all", "equal"])
def test_pairs_are_counted_alike_with_and_without_k(over):
    routing = route_top_k(scores(6, 5, 0), 3, torch.Size([2, 3]), weights=over)
    counted = Routing(routing.active, routing.weights, routing.scores, None, routing.shape).count_pairs()
    assert routing.count_pairs().equal(counted)
    assert (routing.num_tokens, routing.num_experts) == (6, 5)


def test_a_routing_does_not_change():
    routing = route_top_k(scores(2, 3, 0), 1, torch.Size([2]), weights="all")
    with pytest.raises(AttributeError):
        routing.num_pairs = 2


def test_detach_keeps_the_decision_and_drops_the_graph():
    scores_TE = scores(3, 4, 0).requires_grad_()
    routing = route_top_k(scores_TE, 2, torch.Size([3]), weights="selected")
    bare = routing.detach()
    assert routing.weights.requires_grad
    assert not bare.weights.requires_grad
    assert not bare.scores.requires_grad
    assert bare.weights.equal(routing.weights)
    assert bare.active is routing.active
