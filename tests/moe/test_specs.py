"""Specs: values that cannot work are refused where they are written, with the key, the value and what is allowed."""

import dataclasses

import pytest

from vmoe.moe import (
    AutonomyOfExperts,
    Dense,
    ExpertChoice,
    Glu,
    HostMlp,
    LowRankGlu,
    Mlp,
    MoESpec,
    Random,
    Relu,
    RoutingFree,
    SelfRouting,
    TopK,
    build_moe,
)

INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("spec", "key", "values"),
    [
        (TopK, "k", [0, -1]),
        (TopK, "balance", [-0.1, INF, NAN]),
        (TopK, "z_loss", [-0.1, INF, NAN]),
        (SelfRouting, "k", [0]),
        (SelfRouting, "offset", [-1]),
        (Random, "source", ["gauss"]),
        (RoutingFree, "threshold", [0, -1, INF, NAN]),
        (RoutingFree, "temperature", [0, -1, INF, NAN]),
        (RoutingFree, "norm", ["l3"]),
        (RoutingFree, "target_density", [0, 1.1, NAN]),
        (RoutingFree, "expert_share", [-0.1, 1.1, NAN]),
        (RoutingFree, "balance_start", [0, 1.1, NAN]),
        (RoutingFree, "balance_rate", [0, INF, NAN]),
        (RoutingFree, "start", [0, INF, NAN]),
        (Mlp, "hidden", [0, "wide"]),
        (Glu, "hidden", [-8]),
        (LowRankGlu, "hidden", [0]),
        (LowRankGlu, "rank", [0, "host"]),
        (MoESpec, "num_experts", [0]),
        (MoESpec, "init", ["warm"]),
        (MoESpec, "dispatch", ["fast"]),
    ],
)
def test_impossible_values(spec, key, values):
    for value in values:
        with pytest.raises(ValueError, match=rf"^{key} is {value!r}; allowed: "):
            spec(**{key: value})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gate": TopK(k=9)}, "gate.k is 9; allowed: 1 to 8"),
        ({"gate": RoutingFree(), "experts": Glu()}, "experts.kind is 'glu'; allowed: lowrank_glu"),
        ({"gate": AutonomyOfExperts(), "experts": Mlp()}, "experts.kind is 'mlp'; allowed: lowrank_glu"),
        ({"gate": Relu(k=9)}, "gate.k is 9; allowed: 1 to 8"),
        ({"gate": ExpertChoice(capacity_factor=8.5)}, "gate.capacity_factor is 8.5; allowed: more than 0, at most 8"),
        ({"shared_experts": -1}, "shared_experts is -1; allowed: 0 or more"),
        ({"upcycle_noise": -0.1}, "upcycle_noise is -0.1; allowed: 0 or more"),
    ],
)
def test_impossible_combinations(values, message):
    with pytest.raises(ValueError, match=message):
        MoESpec(**values)


@pytest.mark.parametrize(
    ("gate", "experts"),
    [(TopK(), Mlp()), (SelfRouting(), Mlp()), (Random(), Mlp()), (RoutingFree(), LowRankGlu()), (Dense(), None)],
)
def test_experts_that_a_method_comes_with(gate, experts):
    assert MoESpec(gate=gate).experts == experts


@pytest.mark.parametrize(
    ("gate", "active"),
    [(Dense(), 0), (TopK(k=3), 3), (SelfRouting(), 2), (Random(k=1), 1), (RoutingFree(target_density=0.25), 2)],
)
def test_active_experts_of_eight(gate, active):
    assert gate.active_experts(8) == active


def test_specs_compare_by_value_and_do_not_change():
    assert MoESpec(gate=TopK(k=1)) == MoESpec(gate=TopK(k=1)) != MoESpec(gate=TopK(k=2))
    with pytest.raises(dataclasses.FrozenInstanceError):
        MoESpec().num_experts = 3


def test_a_dense_gate_builds_no_layer():
    with pytest.raises(ValueError, match=r"gate.kind is 'dense'"):
        build_moe(MoESpec(gate=Dense()), HostMlp(8, 32, lambda x: x, bias=True, std_in=0.1, std_out=0.1))


def test_defaults_of_the_papers():
    """θ = 1, τ = 1, ρ∞ = 0.25, λ0 = 1e-10, η = 0.02, μ = 0.5 and the 2-norm."""
    spec = RoutingFree()
    assert (spec.threshold, spec.temperature, spec.target_density, spec.norm) == (1, 1, 0.25, "l2")
    assert (spec.balance_start, spec.balance_rate, spec.expert_share) == (1e-10, 0.02, 0.5)
    assert (SelfRouting().k, SelfRouting().renormalize, SelfRouting().offset) == (2, True, None)
