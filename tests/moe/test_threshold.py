"""Another θ on a model that is trained already."""

import pytest
import torch
from small_moe import build, tokens
from torch import nn

from vmoe.moe import LowRankGlu, MoESpec, RoutingFree, at_threshold, moe_layers, record


def routing_free(**gate):
    """Two Routing-Free layers, each after a norm."""
    spec = MoESpec(gate=RoutingFree(start=1.0, **gate), experts=LowRankGlu(hidden=16, rank=6), num_experts=4)
    return nn.Sequential(build(spec), nn.LayerNorm(12), build(spec, seed=1))


def specs(model):
    return [layer.gate.spec for _, layer in moe_layers(model)]


def routings(model):
    with record(model) as recorded:
        model(tokens(2, 9, 12))
    return list(recorded.values())


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_pairs_are_active_from_the_new_threshold_over_the_temperature(temperature):
    model = routing_free(temperature=temperature)
    counts = []
    for threshold in (1.0, 1.4, 2.0):
        with at_threshold(model, threshold):
            counts.append([])
            for routing in routings(model):
                assert routing.active.equal(routing.scores >= threshold / temperature)
                assert routing.weights.equal(routing.scores.where(routing.active, 0))
                counts[-1].append(int(routing.count_pairs()))
    low, middle, high = counts
    assert all(a > b > c > 0 for a, b, c in zip(low, middle, high, strict=True)), counts


def test_leaving_the_scope_leaves_no_trace():
    model = routing_free()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    own, before = specs(model), routings(model)
    with pytest.raises(KeyError), at_threshold(model, 3.0):
        raise KeyError
    assert specs(model) == own
    for one, other in zip(before, routings(model), strict=True):
        assert one.active.equal(other.active)
    assert all(weights[name].equal(tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("threshold", [0.0, -1.0, float("nan"), float("inf")])
def test_a_threshold_that_is_none_is_refused_and_changes_nothing(threshold):
    model = routing_free()
    with (
        pytest.raises(ValueError, match=r"threshold is .*; allowed: more than 0"),
        at_threshold(model, threshold),
    ):
        raise AssertionError("entered")
    assert [spec.threshold for spec in specs(model)] == [1.0, 1.0]


def test_a_model_without_such_layers_is_refused():
    model = nn.Sequential(build(MoESpec(num_experts=4)))
    with pytest.raises(ValueError, match="Sequential has no Routing-Free layer"), at_threshold(model, 1.0):
        raise AssertionError("entered")
    assert torch.isfinite(model(tokens(1, 3, 12))).all()
