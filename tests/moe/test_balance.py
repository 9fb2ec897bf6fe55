"""Balance losses by hand, and the controllers' traces."""

import copy
from functools import partial
from itertools import pairwise
from math import log

import pytest
import torch
from small_moe import COMBINATIONS, balance_of, build, tokens
from timm.utils import ModelEmaV3
from torch import nn
from torch.testing import assert_close
from two_processes import TwoProcesses

from vmoe.moe import (
    AutonomyOfExperts,
    Dense,
    ExpertChoice,
    MoESpec,
    Random,
    Relu,
    RoutingFree,
    SelfRouting,
    Soft,
    TopK,
    balance_for,
    record,
    relu_loss,
    routing_free_loss,
    switch_loss,
    z_loss,
)
from vmoe.moe.routing import route_positive, route_threshold, route_top_k


def top(scores, k=1):
    return route_top_k(scores, k, torch.Size([len(scores)]), weights="selected")


def free(scores, threshold=1.0):
    return route_threshold(scores, threshold, torch.Size([len(scores)]))


def positive(scores):
    return route_positive(scores, torch.Size([len(scores)]))


# --- Switch and z-loss -----------------------------------------------------------------------------------


def test_switch_loss_by_hand():
    # Probabilities (3/4, 1/4) and (2/3, 1/3): f = (1, 0), P_0 = (3/4 + 2/3) / 2 = 17/24, loss 2 · 17/24 = 17/12.
    scores = torch.tensor([[log(3), 0.0], [log(2), 0.0]])
    assert_close(switch_loss(top(scores)), torch.tensor(17 / 12))


@pytest.mark.parametrize("k", [1, 2, 3, 6])
def test_switch_loss_is_one_at_perfect_balance(k):
    # Token t prefers experts t, t + 1, …: every expert gets the same share 1/E, so the loss is Σ_e P_e = 1.
    order = (torch.arange(6) - torch.arange(6)[:, None]) % 6
    assert_close(switch_loss(top(-order.float(), k)), torch.tensor(1.0))


@pytest.mark.parametrize("num_experts", [1, 2, 8])
def test_switch_loss_is_e_at_collapse(num_experts):
    scores = torch.full((5, num_experts), -50.0)
    scores[:, 0] = 50
    assert_close(switch_loss(top(scores)), torch.tensor(float(num_experts)))


def test_switch_loss_has_the_gradient_of_its_probabilities_alone():
    """f is a constant: ∂loss/∂scores = E · Σ_e f_e ∂P_e/∂scores, with f = (1, 0) as above."""
    scores = torch.tensor([[log(3), 0.0], [log(2), 0.0]], requires_grad=True)
    switch_loss(top(scores)).backward()
    # ∂P_0/∂s_t0 = p(1 − p)/T: 3/16 / 2 and 2/9 / 2; times E · f_0 = 2
    assert_close(scores.grad, torch.tensor([[3 / 16, -3 / 16], [2 / 9, -2 / 9]]))


def test_z_loss_by_hand():
    # Σ exp: 1 + 3 = 4 and 2 + 6 = 8, so ((2 ln 2)² + (3 ln 2)²) / 2 = 6.5 ln² 2.
    scores = torch.tensor([[log(1), log(3)], [log(2), log(6)]])
    assert_close(z_loss(top(scores)), torch.tensor(6.5 * log(2) ** 2))


@pytest.mark.parametrize(
    ("balance", "z", "expected"),
    [
        (0.0, 0.0, 0.0),
        (0.5, 0.0, 0.5 * 2 * 17 / 12),  # two layers
        (0.0, 0.1, 0.1 * 2 * (log(4) ** 2 + log(3) ** 2) / 2),
        (0.5, 0.1, 0.5 * 2 * 17 / 12 + 0.1 * (log(4) ** 2 + log(3) ** 2)),
    ],
)
def test_coefficients_of_a_learned_router(balance, z, expected):
    scores = torch.tensor([[log(3), 0.0], [log(2), 0.0]])
    routings = {"a": top(scores), "b": top(scores)}
    assert float(balance_of(TopK(balance=balance, z_loss=z))(routings)) == pytest.approx(expected)


def test_switch_balance_of_autonomous_experts_by_hand():
    """The scores are norms; their softmax is as above, of two layers."""
    norms = torch.tensor([[log(6), log(2)], [log(4), log(2)]])
    routings = {"a": top(norms), "b": top(norms)}
    assert float(balance_of(AutonomyOfExperts(balance=0.5))(routings)) == pytest.approx(0.5 * 2 * 17 / 12)
    assert balance_of(AutonomyOfExperts())(routings) == 0  # the paper has no loss


@pytest.mark.parametrize(
    "spec", [Dense(), SelfRouting(), Random(), ExpertChoice(), Soft(slots=1)], ids=lambda s: s.kind
)
def test_methods_without_a_loss(spec):
    balance = balance_of(spec)
    assert balance({"a": top(torch.randn(4, 3))}) == 0
    balance.step()
    assert balance.figures() == {}


# --- Routing-Free: the loss ------------------------------------------------------------------------------

# Two layers of two experts, two tokens, θ = 1. Columns 0, 1 are layer A's, 2, 3 layer B's.
#     scores             M            P
#     2   .5  0  4       1 0 0 1      2 0 0 4
#     1   3  .2 .9       1 1 0 0      1 3 0 0
A = [[2.0, 0.5], [1.0, 3.0]]
B = [[0.0, 4.0], [0.2, 0.9]]
# Over tokens: mean M (1, ½, 0, ½), mean P (3/2, 3/2, 0, 2); L_E = mean(3/2, 3/4, 0, 1) = 13/16.
# Over columns: mean M (½, ½), mean P (6/4, 4/4); L_T = mean(3/4, 1/2) = 5/8.
L_E, L_T = 13 / 16, 5 / 8


@pytest.mark.parametrize(("expert_share", "expected"), [(1.0, L_E), (0.0, L_T), (0.5, (L_E + L_T) / 2)])
def test_routing_free_loss_by_hand(expert_share, expected):
    routings = [free(torch.tensor(A)), free(torch.tensor(B))]
    assert_close(routing_free_loss(routings, expert_share), torch.tensor(expected))


@pytest.mark.parametrize(
    ("expert_share", "expected"),
    [
        # ∂L_E/∂P[t, j] = mean_t M[t, j] / (columns · T) = mean M / 8, for active pairs
        (1.0, [[1 / 8, 0], [1 / 8, 1 / 16]]),
        # ∂L_T/∂P[t, j] = mean_j M[t, j] / (T · columns) = ½ / 8
        (0.0, [[1 / 16, 0], [1 / 16, 1 / 16]]),
    ],
)
def test_active_pairs_alone_get_a_gradient_and_activity_counts_as_constant(expert_share, expected):
    scores = torch.tensor(A, requires_grad=True)
    routing_free_loss([free(scores), free(torch.tensor(B))], expert_share).backward()
    assert_close(scores.grad, torch.tensor(expected))


def test_the_loss_does_not_depend_on_the_order_of_layers():
    routings = [free(torch.tensor(A)), free(torch.tensor(B)), free(torch.rand(5, 3) * 2)]
    assert_close(routing_free_loss(routings, 0.3), routing_free_loss(routings[::-1], 0.3))


def test_layers_of_different_numbers_of_tokens_weigh_by_their_experts():
    few, many = free(torch.tensor(A)), free(torch.rand(7, 3, generator=torch.Generator().manual_seed(0)) * 2)
    expected = (2 * routing_free_loss([few], 0.3) + 3 * routing_free_loss([many], 0.3)) / 5
    assert_close(routing_free_loss([few, many], 0.3), expected)


def test_a_loss_without_active_pairs_is_zero_and_has_a_gradient():
    scores = torch.zeros(3, 2, requires_grad=True)
    loss = routing_free_loss([free(scores)], 0.5)
    loss.backward()
    assert loss.item() == 0
    assert not scores.grad.any()


# --- Routing-Free: the coefficient -----------------------------------------------------------------------


def exactly(value):
    """To the last digits of float64, also for numbers near 1e-10."""
    return pytest.approx(value, rel=1e-12, abs=0)


def controller(**values):
    return balance_of(RoutingFree(**values))


def with_density(active, pairs=8):
    """A routing of one token, `active` of its `pairs` pairs active."""
    return {"layer": free((torch.arange(pairs) < active).float()[None])}


def trace(balance, steps):
    """The coefficient after each step, given the micro-batches of every step."""
    coefficients = []
    for micro_batches in steps:
        for routings in micro_batches:
            balance(routings)
        balance.step()
        coefficients.append(float(balance.figures()["balance_coefficient"]))
    return coefficients


def test_the_coefficient_multiplies_the_loss():
    balance = controller(balance_start=0.5, expert_share=1.0)
    assert float(balance({"a": free(torch.tensor(A)), "b": free(torch.tensor(B))})) == pytest.approx(0.5 * L_E)


def test_trace_by_hand():
    # densities ½, ½, ⅛, ¼, ½ against ρ∞ = ¼: up, up, down, stay, up
    steps = [[with_density(n)] for n in (4, 4, 1, 2, 4)]
    powers = [1, 2, 1, 1, 2]
    expected = [1e-10 * 1.02**power for power in powers]
    assert trace(controller(), steps) == exactly(expected)


@pytest.mark.parametrize(("rate", "target", "direction"), [(0.1, 0.5, -1), (1.0, 1.0, -1), (0.02, 0.01, 1)])
def test_rate_and_target_are_the_specs(rate, target, direction):
    """Density 3/8."""
    balance = controller(balance_rate=rate, target_density=target, balance_start=1e-3)
    assert trace(balance, [[with_density(3)]]) == exactly([1e-3 * (1 + rate) ** direction])


def test_the_coefficient_reaches_one_after_1163_steps_and_stays():
    """ln 10¹⁰ / ln 1.02 = 1162.8."""
    coefficients = trace(controller(), [[with_density(8)]] * 1165)
    assert coefficients[1161] < 1
    assert coefficients[1162:] == [1, 1, 1]


def test_without_a_forward_nothing_moves():
    balance = controller()
    balance.step()
    assert float(balance.coefficient) == 1e-10
    assert balance.density.isnan()


def test_density_of_no_active_pair_moves_down():
    assert trace(controller(), [[with_density(0)]]) == exactly([1e-10 / 1.02])


def test_layers_count_by_their_pairs():
    """3 of 4 and 0 of 12 pairs: density 3/16 < ¼, though the mean of the layers' densities is 3/8."""
    routings = {"a": with_density(3, 4)["layer"], "b": with_density(0, 12)["layer"]}
    balance = controller()
    assert trace(balance, [[routings]]) == exactly([1e-10 / 1.02])
    assert float(balance.density) == 3 / 16


def random_steps(count=30):
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(12, 4, generator=generator) * 1.3 for _ in range(count)]  # density near 0.3 / 1.3 = 0.23


def test_micro_batches_change_nothing():
    whole = trace(controller(), [[{"a": free(scores)}] for scores in random_steps()])
    split = trace(controller(), [[{"a": free(part)} for part in scores.chunk(4)] for scores in random_steps()])
    assert split == whole
    directions = {later > earlier for earlier, later in pairwise(whole)}
    assert directions == {True, False}  # the trace does go up and down


def test_processes_change_nothing(monkeypatch):
    """With 9 and 3 of the tokens."""
    whole = trace(controller(), [[{"a": free(scores)}] for scores in random_steps()])
    steps = [[[{"a": free(scores.split([9, 3])[rank])}] for scores in random_steps()] for rank in range(2)]
    processes = TwoProcesses(monkeypatch)
    assert processes.run(*(partial(trace, controller(), each) for each in steps)) == [whole, whole]


def test_state_goes_through_a_checkpoint_in_the_middle_of_a_step():
    steps = [[{"a": free(part)} for part in scores.chunk(4)] for scores in random_steps()]
    whole = trace(controller(), steps)
    first = controller()
    trace(first, steps[:10])
    first(steps[10][0])
    second = controller()
    second.load_state_dict(first.state_dict())
    assert trace(second, [steps[10][1:], *steps[11:]]) == whole[10:]


def test_a_model_carries_no_state_of_the_balance():
    """So that evaluation, moving averages and copies of the model cannot touch it."""
    spec = COMBINATIONS["routing_free-lowrank_glu"]
    layer = build(spec)
    balance = balance_for(layer)
    before = copy.deepcopy(balance.state_dict())
    for mode in (True, False):
        with record(copy.deepcopy(layer.train(mode))) as routings:
            layer(tokens(2, 5, 12))
    assert not set(balance.state_dict()) & set(layer.state_dict())
    assert all(before[name].equal(value) or value.isnan() for name, value in balance.state_dict().items())
    assert len(routings) == 0


def test_small_coefficients_are_kept_exactly():
    """10⁻¹⁰ · 1.02ⁿ drifts in float32 (eps 1.2·10⁻⁷): after 200 steps up and down it has to be back."""
    balance = controller()
    steps = [[with_density(4)]] * 200 + [[with_density(1)]] * 200
    assert trace(balance, steps)[-1] == exactly(1e-10)


@pytest.mark.parametrize("gate", [TopK(), RoutingFree(), Relu(), AutonomyOfExperts(balance=0.1)], ids=lambda s: s.kind)
def test_the_loss_reaches_the_parameters_that_decide(gate):
    layer = build(MoESpec(gate=gate, num_experts=4))
    balance = balance_for(layer)
    with record(layer) as routings:
        layer(tokens(2, 9, 12))
    balance(routings).backward()
    deciding = [*layer.gate.parameters()]
    if gate.SCORES_FEATURES:
        deciding.append(layer.experts.gate_down.weight)
    assert all(parameter.grad.any() for parameter in deciding)
    assert all(p.grad is None for name, p in layer.experts.named_parameters() if name != "gate_down.weight")


# --- ReMoE -----------------------------------------------------------------------------------------------

# Three tokens, two experts. Σ_t R = (3, 3), Σ_t [R > 0] = (2, 1): 3·2 + 3·1 = 9.
R = [[2.0, 0.0], [1.0, 3.0], [-1.0, -5.0]]


@pytest.mark.parametrize("k", [1, 2])
def test_relu_loss_by_hand(k):
    """``E/(k·T²) · 9``."""
    assert_close(relu_loss(positive(torch.tensor(R)), k), torch.tensor(2 / (k * 3**2) * 9))


def test_relu_loss_weighs_an_experts_gradient_by_its_load():
    """∂/∂R_te = E/(k·T²) · Σ_t [R_te > 0] for active pairs: 2/9 · 2 and 2/9 · 1. The load counts as constant."""
    scores = torch.tensor(R, requires_grad=True)
    relu_loss(positive(scores), 1).backward()
    assert_close(scores.grad, torch.tensor([[4 / 9, 0], [4 / 9, 2 / 9], [0, 0]]))


def test_relu_loss_is_the_l1_norm_over_k_at_even_load():
    """With every pair active, Σ_t [R > 0] = T, so the loss is E/k times the tokens' mean L1 norm."""
    weights = torch.rand(6, 4, generator=torch.Generator().manual_seed(0)) + 0.1
    assert_close(relu_loss(positive(weights), 2), 4 / 2 * weights.sum(1).mean())


def test_relu_loss_without_an_active_pair_is_zero_and_has_a_gradient():
    scores = torch.tensor([[-1.0, 0.0], [-2.0, -3.0]], requires_grad=True)
    loss = relu_loss(positive(scores), 1)
    loss.backward()
    assert loss.item() == 0
    assert not scores.grad.any()


def test_relu_balance_is_the_mean_over_layers_times_the_coefficient():
    """Layer a: 4/(2·9) · 9, layer b of one token: 4/2 · (1·1); a gate of E = 4 and k = 2."""
    four = torch.tensor([[2.0, 0, 0, 0], [1, 3, 0, 0], [-1, -5, 0, 0]])
    routings = {"a": positive(four), "b": positive(torch.tensor([[1.0, 0, 0, 0]]))}
    assert float(balance_of(Relu(k=2, balance_start=0.5))(routings)) == pytest.approx(0.5 * (2 + 2) / 2)


def relu_with(active, pairs=8):
    return {"layer": positive((torch.arange(pairs) < active).float()[None])}


def test_relu_trace_by_hand():
    """Densities 5/8, 1, 4/8, 3/8, 0 against k/E = 2/4: up, up, down (not above), down, down."""
    steps = [[relu_with(n)] for n in (5, 8, 4, 3, 0)]
    expected = [1e-8 * 1.2**power for power in (1, 2, 1, 0, -1)]
    assert trace(balance_of(Relu(k=2)), steps) == exactly(expected)


@pytest.mark.parametrize(("k", "direction"), [(1, 1), (2, -1), (3, -1)])
def test_relu_factor_start_and_target_are_the_specs(k, direction):
    """Density 3/8 against 1/4, 2/4, 3/4; four experts."""
    balance = balance_of(Relu(k=k, balance_factor=3.0, balance_start=0.7))
    assert trace(balance, [[relu_with(3)]]) == exactly([0.7 * 3.0**direction])


def test_relu_coefficient_has_no_bound():
    """ReMoE's λ may pass 1, unlike Routing-Free's."""
    balance = balance_of(Relu(balance_start=0.9))
    assert trace(balance, [[relu_with(8)]] * 3) == exactly([0.9 * 1.2, 0.9 * 1.2**2, 0.9 * 1.2**3])


def test_relu_without_a_forward_does_not_move():
    balance = balance_of(Relu())
    balance.step()
    assert float(balance.coefficient) == 1e-8


def test_relu_splits_change_nothing():
    """One density of all pairs: of a step's micro-batches 5/8 and 2/8 it is 7/16, below 2/4, as of the whole."""
    assert trace(balance_of(Relu(k=2)), [[relu_with(5), relu_with(2)]]) == exactly([1e-8 / 1.2])
    whole = trace(balance_of(Relu(k=1)), [[{"a": positive(scores - 1)}] for scores in random_steps()])
    split = trace(
        balance_of(Relu(k=1)), [[{"a": positive(part - 1)} for part in scores.chunk(4)] for scores in random_steps()]
    )
    assert split == whole
    assert {later > earlier for earlier, later in pairwise(whole)} == {True, False}


# --- The bias controller ---------------------------------------------------------------------------------


def biased(**values):
    """A layer of four experts, one for each token, with a bias controller, and its balance."""
    layer = build(MoESpec(gate=TopK(**({"k": 1, "balance": 0.0, "bias_rate": 0.25} | values)), num_experts=4))
    return layer, balance_for(layer)


def loads(*counts):
    """A routing that gives each of four experts so many tokens."""
    experts = torch.repeat_interleave(torch.arange(4), torch.tensor(counts))
    return {"": top(nn.functional.one_hot(experts, 4).float())}


def bias_trace(layer, balance, steps):
    steps_taken = []
    for micro_batches in steps:
        for routings in micro_batches:
            balance(routings)
        balance.step()
        steps_taken.append(layer.gate.bias_steps.tolist())
    return steps_taken


def test_bias_trace_by_hand():
    layer, balance = biased()
    steps = [
        [loads(3, 1, 0, 0)],  # mean 1: − 0 + +
        [loads(0, 2, 5, 1)],  # mean 2: + 0 − +
        [loads(0, 2, 2, 1)],  # mean 5/4: + − − +
        [loads(2, 2, 2, 2)],  # even: nothing moves
    ]
    assert bias_trace(layer, balance, steps) == [[-1, 0, 1, 1], [0, 0, 0, 2], [1, -1, -1, 3], [1, -1, -1, 3]]
    assert layer.gate.bias_steps.dtype == torch.int64


def test_the_bias_follows_the_sum_of_micro_batches():
    """(3, 1, 0, 0) and (0, 1, 7, 0) make (3, 2, 7, 0), mean 3: 0 + − +. The parts' signs − 0 + + and + + − + differ."""
    layer, balance = biased()
    assert bias_trace(layer, balance, [[loads(3, 1, 0, 0), loads(0, 1, 7, 0)]]) == [[0, 1, -1, 1]]


def test_counts_of_a_step_do_not_reach_the_next():
    layer, balance = biased()
    assert bias_trace(layer, balance, [[loads(9, 1, 1, 1)], [loads(0, 1, 1, 2)]])[-1] == [0, 1, 1, 0]


def test_without_a_forward_no_bias_moves():
    layer, balance = biased()
    balance.step()
    assert layer.gate.bias_steps.tolist() == [0, 0, 0, 0]


def forwards(layer, balance, parts):
    """One training step without an optimizer: a forward of each part, then the controller's step."""
    with record(layer) as routings:
        for part in parts:
            layer(part)
            balance(routings)
    balance.step()
    return layer.gate.bias_steps.tolist()


def test_any_split_gives_the_same_biases():
    """Rows of one step as one batch, and as parts of unequal sizes."""
    batches = [tokens(8, 3, 12, seed=seed) for seed in range(20)]
    layer, balance = biased(k=2)
    whole = [forwards(layer, balance, [x]) for x in batches]
    layer, balance = biased(k=2)
    split = [forwards(layer, balance, x.split([1, 4, 3])) for x in batches]
    assert split == whole
    assert len({tuple(steps) for steps in whole}) > 3


def test_processes_give_the_same_biases(monkeypatch):
    whole = bias_trace(*biased(), [[loads(3, 2, 7, 0)], [loads(4, 4, 3, 1)]])
    first = [[loads(3, 1, 0, 0)], [loads(3, 4, 0, 0)]]
    second = [[loads(0, 1, 7, 0)], [loads(1, 0, 3, 1)]]
    processes = TwoProcesses(monkeypatch)
    assert processes.run(*(partial(bias_trace, *biased(), steps) for steps in (first, second))) == [whole, whole]


def test_each_layer_has_biases_of_its_own():
    gate = TopK(k=1, balance=0.0, bias_rate=0.25)
    model = nn.ModuleDict({name: build(MoESpec(gate=gate, num_experts=4)) for name in "ab"})
    balance = balance_for(model)
    balance({"b": loads(3, 1, 0, 0)[""], "a": loads(0, 0, 1, 3)[""]})
    balance.step()
    assert model["a"].gate.bias_steps.tolist() == [1, 1, 0, -1]
    assert model["b"].gate.bias_steps.tolist() == [-1, 0, 1, 1]


def test_the_bias_evens_out_a_collapsed_router():
    """Expert 0 is most tokens' best by far; 200 steps of 1/200 span all of a probability's range."""
    layer, balance = biased(bias_rate=0.005)
    with torch.no_grad():
        layer.gate.router.weight.normal_(std=0.5, generator=torch.Generator().manual_seed(0))
        layer.gate.router.weight[0] += 0.5
    x = tokens(4, 64, 12) + 1
    largest = []
    for _ in range(220):
        with record(layer) as routings:
            layer(x)
            largest.append(float(routings[""].active.float().mean(0).max()))
            balance(routings)
        balance.step()
    assert largest[0] > 0.8
    assert sum(largest[-20:]) / 20 < 0.35


def test_the_bias_is_the_models_and_the_counts_are_the_balances():
    layer, balance = biased()
    bias_trace(layer, balance, [[loads(3, 1, 0, 0)]])
    balance(loads(1, 0, 0, 4))
    assert layer.state_dict()["gate.bias_steps"].tolist() == [-1, 0, 1, 1]
    assert {name: value.tolist() for name, value in balance.state_dict().items()} == {"pairs": [[1, 0, 0, 4]]}
    assert list(balance.parameters()) == []


def test_biases_go_through_a_checkpoint_in_the_middle_of_a_step():
    layer, balance = biased()
    bias_trace(layer, balance, [[loads(3, 1, 0, 0)]])
    balance(loads(3, 1, 0, 0))
    again, balance_again = biased()
    again.load_state_dict(layer.state_dict())
    balance_again.load_state_dict(balance.state_dict())
    rest = [[loads(0, 1, 7, 0)], [loads(5, 0, 0, 0)]]
    assert bias_trace(again, balance_again, rest) == bias_trace(layer, balance, rest) == [[-1, 1, 0, 2], [-2, 2, 1, 3]]


def test_evaluation_moves_no_bias():
    layer, balance = biased()
    bias_trace(layer, balance, [[loads(3, 1, 0, 0)]])
    for mode in (True, False):
        with record(layer.train(mode)), torch.no_grad():
            layer(tokens(2, 5, 12))
    assert layer.gate.bias_steps.tolist() == [-1, 0, 1, 1]
    assert not balance.pairs.any()


@pytest.mark.parametrize("foreach", [True, False])
def test_a_moving_average_copies_the_bias_and_averages_the_weights(foreach):
    layer, balance = biased()
    average = ModelEmaV3(layer, decay=0.9, foreach=foreach)
    bias_trace(layer, balance, [[loads(3, 1, 0, 0)]] * 5)
    before = layer.gate.router.weight.detach().clone()
    with torch.no_grad():
        layer.gate.router.weight.add_(1)
    average.update(layer)
    assert average.module.gate.bias_steps.tolist() == [-5, 0, 5, 5]
    assert average.module.gate.bias_steps.dtype == torch.int64
    assert_close(average.module.gate.router.weight, before + 0.1)
    bias_trace(layer, balance, [[loads(3, 1, 0, 0)]])
    assert average.module.gate.bias_steps.tolist() == [-5, 0, 5, 5]  # a copy, not the same tensor


def test_the_bias_selects_in_evaluation_and_leaves_the_weights():
    layer, _ = biased(renormalize=False)
    x = tokens(2, 9, 12)
    layer.gate.bias_steps.copy_(torch.tensor([0, 0, 9, 0]))
    for mode in (True, False):
        with record(layer.train(mode)) as routings:
            layer(x)
            routing = routings[""]
        assert routing.active[:, 2].all()
        assert_close(routing.weights[:, 2], routing.scores.softmax(-1)[:, 2])


def test_losses_may_go_beside_the_bias():
    _, balance = biased(balance=0.5, z_loss=0.1)
    routings = {"": top(torch.tensor([[log(3), 0.0, -50, -50]]))}
    # one token: f = (1, 0, 0, 0), P_0 = 3/4, E = 4
    assert float(balance(routings)) == pytest.approx(0.5 * 4 * 3 / 4 + 0.1 * log(4) ** 2)
    assert biased()[1](routings) == 0


def test_a_controller_refuses_forwards_that_were_not_recorded():
    for balance in (biased()[1], balance_of(Relu()), balance_of(RoutingFree())):
        with pytest.raises(ValueError, match="no routings to balance"):
            balance({})


# --- Several processes -----------------------------------------------------------------------------------

LOSSES = [TopK(balance=0.5, z_loss=0.1), AutonomyOfExperts(balance=0.5), RoutingFree(balance_start=0.5), Relu()]
TOKENS, EXPERTS, LAYERS = 12, 4, 2


def scores_of_layers() -> list[torch.Tensor]:
    """Uneven: the first half of the tokens prefers low experts, and the second half high ones."""
    generator = torch.Generator().manual_seed(3)
    slope = torch.linspace(-1, 1, EXPERTS) * torch.linspace(-1, 1, TOKENS)[:, None]
    return [torch.randn(TOKENS, EXPERTS, generator=generator) * 0.5 + 1 + slope for _ in range(LAYERS)]


def loss_and_gradients(spec, scores: list[torch.Tensor]):
    """Of the balance loss, by the scores of the layers."""
    route = {"routing_free": free, "relu": positive}.get(spec.kind, partial(top, k=2))
    scores = [each.clone().requires_grad_() for each in scores]
    loss = balance_of(spec)({str(number): route(each) for number, each in enumerate(scores)})
    loss.backward()
    return loss.detach(), [each.grad for each in scores]


@pytest.mark.parametrize("spec", LOSSES, ids=lambda spec: spec.kind)
def test_the_mean_over_processes_is_the_loss_of_all_tokens(monkeypatch, spec):
    """Loss and gradients, though the experts' load is another one on each process."""
    whole, gradients = loss_and_gradients(spec, scores_of_layers())
    parts = [[scores.chunk(2)[rank] for scores in scores_of_layers()] for rank in range(2)]
    alone = [loss_and_gradients(spec, part)[0] for part in parts]
    calls = [partial(loss_and_gradients, spec, part) for part in parts]
    (first, first_gradients), (second, second_gradients) = TwoProcesses(monkeypatch).run(*calls)
    assert_close((first + second) / 2, whole)
    for layer in range(LAYERS):
        assert_close(torch.cat([first_gradients[layer], second_gradients[layer]]) / 2, gradients[layer])
    assert abs(sum(alone) / 2 - whole) > 1e-3 * abs(whole), "the case says nothing where local loads would do"


@pytest.mark.parametrize("spec", LOSSES, ids=lambda spec: spec.kind)
def test_without_a_token_a_loss_is_zero(spec):
    loss, gradients = loss_and_gradients(spec, [torch.zeros(0, EXPERTS)])
    assert loss == 0
    assert gradients[0].shape == (0, EXPERTS)
