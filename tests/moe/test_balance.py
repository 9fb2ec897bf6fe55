"""Balance losses by hand, and the controller's trace."""

import copy
from itertools import pairwise
from math import log

import pytest
import torch
from small_moe import COMBINATIONS, balance_of, build, tokens
from torch.testing import assert_close

from vmoe.moe import (
    Dense,
    MoESpec,
    Random,
    RoutingFree,
    SelfRouting,
    TopK,
    balance_for,
    record,
    routing_free_loss,
    switch_loss,
    z_loss,
)
from vmoe.moe.routing import route_threshold, route_top_k


def top(scores, k=1):
    return route_top_k(scores, k, torch.Size([len(scores)]), weights="selected")


def free(scores, threshold=1.0):
    return route_threshold(scores, threshold, torch.Size([len(scores)]))


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


@pytest.mark.parametrize("spec", [Dense(), SelfRouting(), Random()], ids=lambda s: s.kind)
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
    assert balance.figures()["density"].isnan()


def test_density_of_no_active_pair_moves_down():
    assert trace(controller(), [[with_density(0)]]) == exactly([1e-10 / 1.02])


def test_layers_count_by_their_pairs():
    """3 of 4 and 0 of 12 pairs: density 3/16 < ¼, though the mean of the layers' densities is 3/8."""
    routings = {"a": with_density(3, 4)["layer"], "b": with_density(0, 12)["layer"]}
    balance = controller()
    assert trace(balance, [[routings]]) == exactly([1e-10 / 1.02])
    assert float(balance.figures()["density"]) == 3 / 16


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
    """Two processes with a half of the tokens each, the second of them a sum that all_reduce adds."""
    whole = trace(controller(), [[{"a": free(scores)}] for scores in random_steps()])
    halves = [scores.split([9, 3]) for scores in random_steps()]
    others = iter([torch.tensor([int((there >= 1).sum()), there.numel()]) for _, there in halves])
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda counts: counts.add_(next(others)))
    assert trace(controller(), [[{"a": free(here)}] for here, _ in halves]) == whole


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
    assert all(
        before[name].equal(
            value,
        )
        or value.isnan()
        for name, value in balance.state_dict().items()
    )
    assert len(routings) == 0


def test_small_coefficients_are_kept_exactly():
    """10⁻¹⁰ · 1.02ⁿ drifts in float32 (eps 1.2·10⁻⁷): after 200 steps up and down it has to be back."""
    balance = controller()
    steps = [[with_density(4)]] * 200 + [[with_density(1)]] * 200
    assert trace(balance, steps)[-1] == exactly(1e-10)


@pytest.mark.parametrize("gate", [TopK(), RoutingFree()], ids=lambda s: s.kind)
def test_the_loss_reaches_the_parameters_that_decide(gate):
    layer = build(MoESpec(gate=gate, num_experts=4))
    balance = balance_for(layer)
    with record(layer) as routings:
        layer(tokens(2, 9, 12))
    balance(routings).backward()
    deciding = [*layer.gate.parameters()]
    if isinstance(gate, RoutingFree):
        deciding.append(layer.experts.gate_down.weight)
    assert all(parameter.grad.any() for parameter in deciding)
    assert all(p.grad is None for name, p in layer.experts.named_parameters() if name != "gate_down.weight")
