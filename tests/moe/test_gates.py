"""Gates on cases worked out by hand. Tokens are rows; `e`-th column of a Routing is expert e."""

from math import log

import pytest
import torch
from small_moe import build, tokens
from torch import nn
from torch.testing import assert_close

from vmoe.moe import (
    AutonomyOfExperts,
    ExpertChoice,
    LowRankGlu,
    MoESpec,
    Random,
    Relu,
    RoutingFree,
    SelfRouting,
    Soft,
    TopK,
)
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


# --- The bias and the jitter of a learned router ---------------------------------------------------------


@pytest.mark.parametrize(
    ("k", "renormalize", "active", "weights"),
    [
        # Probabilities (3, 2, 1)/6 and (1, 8, 2)/11 plus steps (−1, 0, 1) of ¼ rank by (3, 4, 5)/12 and by
        # about (−.16, .73, .43). A weight is the probability without the steps.
        (1, False, [[False, False, True], [False, True, False]], [[0, 0, 1 / 6], [0, 8 / 11, 0]]),
        (1, True, [[False, False, True], [False, True, False]], [[0, 0, 1], [0, 1, 0]]),
        # The best two are 2 and 1, then 1 and 2, with exponentials (2, 1) and (4, 1).
        (2, True, [[False, True, True], [False, True, True]], [[0, 2 / 3, 1 / 3], [0, 4 / 5, 1 / 5]]),
        (2, False, [[False, True, True], [False, True, True]], [[0, 2 / 6, 1 / 6], [0, 8 / 11, 2 / 11]]),
    ],
)
def test_the_bias_selects_and_does_not_weigh(k, renormalize, active, weights):
    gate = set_router(build_gate(TopK(k=k, renormalize=renormalize, bias_rate=0.25), 2, 3), ROUTER)
    gate.bias_steps.copy_(torch.tensor([-1, 0, 1]))
    routing = route(gate, TWO_TOKENS)
    assert routing.active.tolist() == active
    assert_close(routing.weights, torch.tensor(weights, dtype=torch.float32))
    assert_close(routing.scores, torch.tensor([[log(3), log(2), 0], [-log(2), log(4), 0]]))


def test_a_bias_of_no_steps_changes_nothing():
    torch.manual_seed(0)
    gate = build_gate(TopK(k=2, bias_rate=0.25), 8, 4)
    without = set_router(build_gate(TopK(k=2), 8, 4), gate.router.weight.tolist())
    x = tokens(32, 8)
    assert route(gate, x).weights.equal(route(without, x).weights)


def test_a_gate_without_a_controller_has_no_bias():
    assert set(build_gate(TopK(), 8, 4).state_dict()) == {"router.weight"}
    assert set(build_gate(TopK(bias_rate=1e-3), 8, 4).state_dict()) == {"router.weight", "bias_steps"}


def test_jitter_multiplies_what_the_router_reads_in_training_only():
    """The third score is x0 + x1, and stays the sum of the other two: the noise is of x, not of the scores."""
    gate = set_router(build_gate(TopK(k=2, jitter=0.1), 2, 3), [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    x = tokens(1000, 2, seed=4)
    torch.manual_seed(0)
    scores = route(gate.train(), x).scores.detach()
    assert_close(scores[:, 2], scores[:, 0] + scores[:, 1])
    noise = scores[:, :2] / x
    assert 0.9 <= noise.min() < 0.91
    assert 1.09 < noise.max() <= 1.1
    # U(.9, 1.1) has deviation .2/√12 = 0.0577, the mean of 2000 of them 0.0577/√2000 = 0.0013
    assert abs(float(noise.mean()) - 1) < 5 * 0.0013
    assert abs(float(torch.corrcoef(noise.T)[0, 1])) < 5 / 1000**0.5  # each coordinate has noise of its own
    assert not route(gate, x).scores.equal(scores)  # and every forward
    assert route(gate.eval(), x).scores[:, :2].equal(x)


def test_jitter_of_rounded_tokens_is_not_rounded():
    """Near 1 bfloat16 has four numbers within 1 ± 0.01; scores are float32 whatever the tokens are."""
    gate = set_router(build_gate(TopK(k=1, jitter=0.01), 2, 2), [[1.0, 0.0], [0.0, 1.0]]).train()
    scores = route(gate, torch.ones(500, 2, dtype=torch.bfloat16)).scores.detach()
    assert scores.dtype == torch.float32
    assert 0.99 <= scores.min() < scores.max() <= 1.01
    assert len(scores.unique()) > 900


# --- Self-Routing ----------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("layer", "weights"),
    [
        # layer 0 reads coordinates 2 to 4: exponentials (3, 2, 1); layer 1 those from 0 on: (1, 4, 3)
        (0, [3 / 5, 2 / 5, 0]),
        (1, [0, 4 / 7, 3 / 7]),
        # layer 2 coordinates 1 to 3: (4, 3, 2)
        (2, [4 / 7, 3 / 7, 0]),
    ],
)
def test_each_layer_has_its_offset(layer, weights):
    gate = build_gate(SelfRouting(k=2, offset=(2, 0, 1)), 5, 3, layer=layer)
    routing = route(gate, torch.tensor([[log(1), log(4), log(3), log(2), log(1)]]))
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


# --- Scores by the experts' own features -----------------------------------------------------------------

# Norms of token 0: ln 3 · ‖(.6, .8)‖ = ln 3, ln 2, 0; of token 1: 0, ln 4 · ‖(−.6, .8)‖ = ln 4, ln 2. Their
# exponentials are (3, 2, 1), sum 6, and (1, 4, 2), sum 7.
THREE_FEATURES = torch.tensor(
    [
        [[0.6 * log(3), 0.8 * log(3)], [0, -log(2)], [0, 0]],
        [[0, 0], [-0.6 * log(4), 0.8 * log(4)], [log(2), 0]],
    ]
)


@pytest.mark.parametrize(
    ("k", "renormalize", "weights"),
    [
        (2, True, [[3 / 5, 2 / 5, 0], [0, 4 / 6, 2 / 6]]),  # the softmax after the selection
        (2, False, [[3 / 6, 2 / 6, 0], [0, 4 / 7, 2 / 7]]),  # before it, as in the authors' code
        (1, True, [[1, 0, 0], [0, 1, 0]]),
        (1, False, [[3 / 6, 0, 0], [0, 4 / 7, 0]]),
    ],
)
def test_autonomy_of_experts_by_hand(k, renormalize, weights):
    gate = build_gate(AutonomyOfExperts(k=k, renormalize=renormalize), 2, 3)
    routing = route(gate, torch.zeros(2, 2), THREE_FEATURES)
    assert_close(routing.weights, torch.tensor(weights, dtype=torch.float32))
    assert routing.active.equal(torch.tensor(weights) > 0)
    assert_close(routing.scores, torch.tensor([[log(3), log(2), 0], [0, log(4), log(2)]]))
    assert routing.num_pairs == 2 * k


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


# --- ReMoE -----------------------------------------------------------------------------------------------


def test_relu_by_hand():
    """Scores (x0, x1, x0 + x1); those above 0 are active and are the weights; 0 itself is not active."""
    gate = set_router(build_gate(Relu(k=1), 2, 3), [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    routing = route(gate, torch.tensor([[2.0, -1.0], [-1.0, -3.0], [0.5, 3.0], [1.0, -1.0]]))
    assert routing.scores.tolist() == [[2, -1, 1], [-1, -3, -4], [0.5, 3, 3.5], [1, -1, 0]]
    assert routing.weights.tolist() == [[2, 0, 1], [0, 0, 0], [0.5, 3, 3.5], [1, 0, 0]]
    assert routing.active.tolist() == [[True, False, True], [False] * 3, [True] * 3, [True, False, False]]
    assert routing.num_pairs is None
    assert int(routing.count_pairs()) == 6


# --- Expert choice ---------------------------------------------------------------------------------------

# Scores are x itself. Exponentials (3, 1), (4, 1), (1, 4), (1, 2), so probabilities of experts 0 and 1:
#     a  3/4  1/4        c  1/5  4/5
#     b  4/5  1/5        d  1/3  2/3
CHOICES = torch.tensor([[log(3), 0.0], [log(4), 0.0], [0.0, log(4)], [0.0, log(2)]])


@pytest.mark.parametrize(
    ("factor", "group", "weights"),
    [
        # sequences (a, b) and (c, d), 1 · 2 / 2 = 1 token each: 0 takes b, d; 1 takes a (1/4 is more than 1/5), c
        (1.0, "sequence", [[0, 1 / 4], [4 / 5, 0], [0, 4 / 5], [1 / 3, 0]]),
        # 1 · 4 / 2 = 2 tokens of all four: 0 takes a, b; 1 takes c, d
        (1.0, "batch", [[3 / 4, 0], [4 / 5, 0], [0, 4 / 5], [0, 2 / 3]]),
        # ½ · 4 / 2 = 1 token of all four; a and d have no expert
        (0.5, "batch", [[0, 0], [4 / 5, 0], [0, 4 / 5], [0, 0]]),
        # 1.5 · 4 / 2 = 3 tokens of all four: 0 takes a, b, d; 1 takes c, d, a
        (1.5, "batch", [[3 / 4, 1 / 4], [4 / 5, 0], [0, 4 / 5], [1 / 3, 2 / 3]]),
        # at least 1 token of a sequence, and at most all of them
        (0.1, "sequence", [[0, 1 / 4], [4 / 5, 0], [0, 4 / 5], [1 / 3, 0]]),
        (2.0, "sequence", [[3 / 4, 1 / 4], [4 / 5, 1 / 5], [1 / 5, 4 / 5], [1 / 3, 2 / 3]]),
    ],
)
def test_expert_choice_by_hand(factor, group, weights):
    gate = set_router(build_gate(ExpertChoice(capacity_factor=factor, group=group), 2, 2), [[1.0, 0.0], [0.0, 1.0]])
    routing = route(gate, CHOICES, shape=(2, 2))
    assert_close(routing.weights, torch.tensor(weights))
    assert routing.active.equal(torch.tensor(weights) > 0)
    assert routing.num_pairs == int(routing.active.sum())


@pytest.mark.parametrize("num_experts", [1, 3, 5])
def test_experts_choose_equally_many_tokens_of_each_sequence(num_experts):
    gate = build_gate(ExpertChoice(capacity_factor=1.0), 8, num_experts)
    active = route(gate, tokens(4 * 15, 8), shape=(4, 15)).active.unflatten(0, (4, 15))
    assert (active.sum(1) == 15 // num_experts).all()


# --- Soft MoE --------------------------------------------------------------------------------------------


def soft(x, slots_SD, num_experts, shape, scale=None):
    gate = build_gate(Soft(slots=len(slots_SD) // num_experts, normalize=scale is not None), 2, num_experts)
    with torch.no_grad():
        gate.weight.copy_(torch.tensor(slots_SD))
        if scale is not None:
            gate.scale.fill_(scale)
    return route(gate, torch.tensor(x), shape=shape)


def test_soft_by_hand():
    """Exponentials of the logits: (3, 2) and (1, 4), a row a token and a column a slot."""
    routing = soft([[log(3), log(2)], [0.0, log(4)]], [[1.0, 0.0], [0.0, 1.0]], 2, (1, 2))
    # over tokens: 3 + 1 = 4, 2 + 4 = 6; over slots: 3 + 2 = 5, 1 + 4 = 5
    assert_close(routing.slots.dispatch[0, :, :, 0], torch.tensor([[3 / 4, 2 / 6], [1 / 4, 4 / 6]]))
    assert_close(routing.slots.combine[0, :, :, 0], torch.tensor([[3 / 5, 2 / 5], [1 / 5, 4 / 5]]))
    assert_close(routing.weights, torch.tensor([[3 / 5, 2 / 5], [1 / 5, 4 / 5]]))
    assert routing.active.all()
    assert int(routing.count_pairs()) == 4
    assert int(routing.count_rows()) == 2


def test_soft_adds_an_experts_slots():
    """Two slots for each of two experts: exponentials (2, 3, 1, 6) over slots, sum 12."""
    slots = [[log(2), 0.0], [log(3), 0.0], [0.0, 0.0], [log(6), 0.0]]
    routing = soft([[1.0, 0.0]], slots, 2, (1, 1))
    assert_close(routing.slots.combine.flatten(), torch.tensor([2 / 12, 3 / 12, 1 / 12, 6 / 12]))
    assert routing.slots.dispatch.flatten().tolist() == [1, 1, 1, 1]  # the only token fills every slot
    assert_close(routing.weights, torch.tensor([[5 / 12, 7 / 12]]))
    assert_close(routing.scores, torch.tensor([[log(5), log(7)]]))


def test_soft_mixes_the_tokens_of_a_sequence_only():
    """The sequences of one token each: that token fills every slot."""
    routing = soft([[log(3), log(2)], [0.0, log(4)]], [[1.0, 0.0], [0.0, 1.0]], 2, (2, 1))
    assert routing.slots.dispatch.flatten().tolist() == [1, 1, 1, 1]
    assert_close(routing.slots.combine.flatten(), torch.tensor([3 / 5, 2 / 5, 1 / 5, 4 / 5]))


def test_normalized_soft_by_hand():
    """(3, 4)/5 and (4, −3)/5 times (1, 0) and (0, 1) times 5 ln 2: exponentials (2³, 2⁴) and (2⁴, 2⁻³)."""
    routing = soft([[3.0, 4.0], [8.0, -6.0]], [[2.0, 0.0], [0.0, 0.5]], 2, (1, 2), scale=5 * log(2))
    # over tokens 8 + 16 = 24, 16 + 1/8 = 129/8; over slots the same
    assert_close(routing.slots.dispatch[0, :, :, 0], torch.tensor([[1 / 3, 128 / 129], [2 / 3, 1 / 129]]))
    assert_close(routing.slots.combine[0, :, :, 0], torch.tensor([[1 / 3, 2 / 3], [128 / 129, 1 / 129]]))


# --- Random routing --------------------------------------------------------------------------------------


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


# --- What all gates share --------------------------------------------------------------------------------

EVERY_GATE = [
    TopK(),
    TopK(bias_rate=0.1),
    SelfRouting(),
    Random(source="fixed"),
    Random(source="hash"),
    AutonomyOfExperts(),
    Relu(),
    RoutingFree(),
    ExpertChoice(),
    Soft(slots=2),
]


@pytest.mark.parametrize("spec", EVERY_GATE, ids=lambda s: s.kind)
def test_scores_are_float64_for_float64_tokens(spec):
    gate, x = build_gate(spec, 8, 4), tokens(6, 8, dtype=torch.float64)
    routing = route(gate, x, x.reshape(6, 4, 2))
    assert routing.scores.dtype == routing.weights.dtype == torch.float64


@pytest.mark.parametrize("spec", EVERY_GATE, ids=lambda s: s.kind)
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
