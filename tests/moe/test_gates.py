"""Gates on cases worked out by hand. Tokens are rows; `e`-th column of a Routing is expert e."""

from math import log

import pytest
import torch
from small_moe import build, tokens
from torch import nn
from torch.testing import assert_close

from vmoe.moe import LowRankGlu, MoESpec, Random, RoutingFree, SelfRouting, TopK
from vmoe.moe.build import build_gate


def route(gate, x, features=None, shape=None):
    return gate(x, features, torch.Size(shape or (1, len(x))))


def set_router(gate, rows):
    with torch.no_grad():
        gate.router.weight.copy_(torch.tensor(rows))
    return gate


# Scores are x W_r = (x0, x1, 0). With x = (ln 3, ln 2) their exponentials are (3, 2, 1), sum 6;
# with x = (−ln 2, ln 4) they are (1/2, 4, 1), sum 11/2.
ROUTER = [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]
TWO_TOKENS = torch.tensor([[log(3), log(2)], [-log(2), log(4)]])
BEST_TWO = torch.tensor([[True, True, False], [False, True, True]])


@pytest.mark.parametrize("spec", [TopK, lambda **kw: Random(source="fixed", **kw)], ids=["topk", "fixed"])
@pytest.mark.parametrize(
    ("renormalize", "weights"),
    [
        # of the selected: 3 + 2 = 5 and 4 + 1 = 5
        (True, [[3 / 5, 2 / 5, 0], [0, 4 / 5, 1 / 5]]),
        # of all: 6 and 11/2, so 4 / (11/2) = 8/11
        (False, [[3 / 6, 2 / 6, 0], [0, 8 / 11, 2 / 11]]),
    ],
)
def test_router_by_hand(spec, renormalize, weights):
    gate = set_router(build_gate(spec(k=2, renormalize=renormalize), 2, 3), ROUTER)
    routing = route(gate, TWO_TOKENS)
    assert routing.active.equal(BEST_TWO)
    assert_close(routing.weights, torch.tensor(weights))
    assert_close(routing.scores, torch.tensor([[log(3), log(2), 0], [-log(2), log(4), 0]]))


@pytest.mark.parametrize(
    ("offset", "renormalize", "active", "weights"),
    [
        # None takes the last 3 of the 5 coordinates: exponentials (3, 2, 1)
        (None, True, [True, True, False], [3 / 5, 2 / 5, 0]),
        (2, True, [True, True, False], [3 / 5, 2 / 5, 0]),
        (2, False, [True, True, False], [3 / 6, 2 / 6, 0]),
        # coordinates 1 to 3: exponentials (4, 3, 2)
        (1, True, [True, True, False], [4 / 7, 3 / 7, 0]),
        # coordinates 0 to 2: exponentials (1, 4, 3), sum 8
        (0, False, [False, True, True], [0, 4 / 8, 3 / 8]),
    ],
)
def test_self_routing_by_hand(offset, renormalize, active, weights):
    gate = build_gate(SelfRouting(k=2, offset=offset, renormalize=renormalize), 5, 3)
    x = torch.tensor([[log(1), log(4), log(3), log(2), log(1)]])
    routing = route(gate, x)
    assert routing.active.tolist() == [active]
    assert_close(routing.weights, torch.tensor([weights]))


def test_self_routing_reads_no_other_coordinate():
    gate = build_gate(SelfRouting(k=2), 8, 3)
    x, other = tokens(5, 8), tokens(5, 8, seed=9)
    other[:, -3:] = x[:, -3:]
    assert route(gate, x).weights.equal(route(gate, other).weights)


@pytest.mark.parametrize(
    "spec", [SelfRouting(), Random(source="fixed"), Random(source="uniform"), Random(source="hash")]
)
def test_gates_without_learning_have_nothing_to_train(spec):
    assert [p for p in build_gate(spec, 8, 4).parameters() if p.requires_grad] == []


def test_self_routing_adds_nothing_to_the_checkpoint():
    assert dict(build_gate(SelfRouting(), 8, 4).state_dict()) == {}


@pytest.mark.parametrize("spec", [TopK(), Random(source="fixed")])
def test_routers_start_from_a_normal_of_deviation_002(spec):
    torch.manual_seed(0)
    weight = build_gate(spec, 400, 50).state_dict()["router.weight"]  # in the checkpoint, also when frozen
    # 20,000 draws: the deviation's own deviation is 0.02 / √40000 = 0.0001, the mean's 0.02 / √20000 = 0.00014
    assert abs(float(weight.std()) - 0.02) < 0.0006
    assert abs(float(weight.mean())) < 0.0009


# Norms of the features: token 0 (3, 4): 7, 5, 4; and (3/5, 4/5): 7/5, 1, 4/5. Token 1: (0, 0): 0; (0, 1/2): 1/2.
# Scores are scale · norm − bias with scale (1, 2) and bias (1, 1/2): norm − 1 and 2 norm − 1/2.
FEATURES = torch.tensor([[[3.0, 4.0], [0.6, 0.8]], [[0.0, 0.0], [0.0, 0.5]]])
SCORES = {
    "l1": [[6, 2.3], [-1, 0.5]],
    "l2": [[4, 1.5], [-1, 0.5]],
    "linf": [[3, 1.1], [-1, 0.5]],
}


def routing_free(**values):
    gate = build_gate(RoutingFree(**values), 2, 2)
    with torch.no_grad():
        gate.scale.copy_(torch.tensor([1.0, 2.0]))
        gate.bias.copy_(torch.tensor([1.0, 0.5]))
    return route(gate, torch.zeros(2, 2), FEATURES)


@pytest.mark.parametrize("norm", SCORES)
@pytest.mark.parametrize(
    ("threshold", "temperature", "active_by_norm"),
    [
        (1.0, 1.0, {n: [[True, True], [False, False]] for n in SCORES}),  # token 1 has no expert
        (1.0, 2.0, {n: [[True, True], [False, True]] for n in SCORES}),  # θ/τ = 1/2 is reached, not passed
        (2.0, 1.0, {n: [[True, n == "l1"], [False, False]] for n in SCORES}),  # 2.3 passes, 1.5 and 1.1 do not
        (14.0, 4.0, {n: [[n != "linf", False], [False, False]] for n in SCORES}),  # θ/τ = 3.5
    ],
)
def test_routing_free_by_hand(norm, threshold, temperature, active_by_norm):
    routing = routing_free(norm=norm, threshold=threshold, temperature=temperature)
    active = torch.tensor(active_by_norm[norm])
    scores = torch.tensor(SCORES[norm])
    assert_close(routing.scores, scores)
    assert routing.active.equal(active)
    assert_close(routing.weights, torch.where(active, scores, 0))  # the score itself, not normalised
    assert routing.num_pairs is None


def test_no_active_expert_gives_exactly_zero():
    layer = build(MoESpec(gate=RoutingFree(), experts=LowRankGlu(hidden=8, rank=4), num_experts=3))
    x = tokens(1, 4, 12)
    x[0, 2] = 0  # features 0, scores −bias = 0 < θ
    y = layer(x)
    assert y[0, 2].tolist() == [0.0] * 12
    assert (y[0, [0, 1, 3]].abs().sum(-1) > 0).all()


@pytest.mark.parametrize("source", ["uniform", "hash"])
@pytest.mark.parametrize("training", [True, False])
def test_random_weights_are_one_over_k(source, training):
    gate = build_gate(Random(k=2, source=source), 8, 5).train(training)
    routing = route(gate, tokens(6, 8), shape=(2, 3))
    assert (routing.active.sum(1) == 2).all()
    assert routing.weights.equal(routing.active.float() / 2)


def test_uniform_draws_afresh_in_training_and_repeats_with_the_seed():
    gate = build_gate(Random(k=2, source="uniform"), 8, 8).train()
    x = tokens(64, 8)
    torch.manual_seed(3)
    first, second = route(gate, x), route(gate, x)
    torch.manual_seed(3)
    again = route(gate, x)
    assert not first.active.equal(second.active)
    assert first.active.equal(again.active)


@pytest.mark.parametrize(("source", "training"), [("uniform", False), ("hash", False), ("hash", True)])
def test_hashing_depends_on_the_position_alone(source, training):
    gate = build_gate(Random(k=2, source=source), 8, 8).train(training)
    one = route(gate, tokens(16, 8), shape=(1, 16))
    three = route(gate, tokens(48, 8, seed=5), shape=(3, 16))
    torch.manual_seed(99)
    assert three.active.equal(one.active.repeat(3, 1))
    assert one.active.equal(route(gate, tokens(16, 8, seed=6), shape=(1, 16)).active)
    assert one.active.unique(dim=0).shape[0] > 1  # positions differ


def test_layers_hash_differently_and_a_checkpoint_keeps_the_hash():
    spec = Random(k=2, source="hash")
    first, second = build_gate(spec, 8, 8), build_gate(spec, 8, 8)
    x = tokens(64, 8)
    assert not route(first, x).active.equal(route(second, x).active)
    second.load_state_dict(first.state_dict())
    assert route(first, x).active.equal(route(second, x).active)


def test_hashing_spreads_evenly():
    torch.manual_seed(0)
    gate = build_gate(Random(k=2, source="hash"), 8, 8)
    share = route(gate, torch.zeros(4096, 8)).active.float().mean(0)
    # each expert gets k/E = 1/4 of the tokens; deviation √(1/4 · 3/4 / 4096) = 0.0068
    assert_close(share, torch.full((8,), 0.25), atol=5 * 0.0068, rtol=0)


@pytest.mark.parametrize("spec", [TopK(), SelfRouting(), Random(source="fixed"), RoutingFree()], ids=lambda s: s.kind)
def test_scores_are_float32_under_autocast(spec):
    gate = build_gate(spec, 8, 4)
    x = tokens(6, 8)
    with torch.autocast("cpu", torch.bfloat16):
        routing = route(gate, x, x.reshape(6, 4, 2))
    expected = route(gate, x, x.reshape(6, 4, 2))
    assert routing.scores.dtype == routing.weights.dtype == torch.float32
    assert routing.weights.equal(expected.weights)


@pytest.mark.parametrize(
    ("spec", "dim", "message"),
    [
        (SelfRouting(), 3, r"num_experts is 4; allowed: at most the width, 3"),
        (SelfRouting(offset=5), 8, r"gate.offset is 5; allowed: 0 to 4"),
    ],
)
def test_self_routing_needs_its_coordinates(spec, dim, message):
    with pytest.raises(ValueError, match=message):
        build_gate(spec, dim, 4)


def test_the_frozen_router_stays_frozen():
    gate = build_gate(Random(source="fixed"), 8, 4)
    x = tokens(6, 8).requires_grad_()
    route(gate, x).weights.square().sum().backward()
    assert x.grad is not None  # the routing still depends on x
    assert all(parameter.grad is None for parameter in gate.parameters())
    assert isinstance(gate.router.weight, nn.Parameter)
