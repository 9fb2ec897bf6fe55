"""What is timed is the same work for all: densities are exact, and the rivals that run here agree with vmoe."""

from __future__ import annotations

import pytest
import torch

from benchmarks.agree import check
from benchmarks.layers import (
    Size,
    Work,
    as_gradients,
    build_layer,
    density_of,
    draw_tokens,
    normed_tokens,
    set_density,
    with_path,
)
from benchmarks.rivals import MaskLoop, NonzeroLoop, RoutingFreeLoop
from vmoe.moe import LowRankGlu, Mlp, MoESpec, Relu, RoutingFree, TopK

torch.set_num_threads(1)
CPU = torch.device("cpu")
SIZE = Size(16, 2, 50)
PLAIN = MoESpec(gate=TopK(), experts=Mlp(hidden=24))
FREE = MoESpec(gate=RoutingFree(), experts=LowRankGlu(hidden=24, rank=8))


@pytest.mark.parametrize("gate", [Relu(), RoutingFree()], ids=lambda gate: gate.kind)
@pytest.mark.parametrize("density", [0.1, 0.25, 0.5])
def test_densities_are_exact(gate, density):
    work = Work.on(normed_tokens(SIZE, CPU))
    layer = build_layer(MoESpec(gate=gate), SIZE, CPU)
    set_density(layer, work, density)
    assert density_of(layer, work) == pytest.approx(density)  # 80, 200 or 400 of the 800 pairs


@pytest.mark.parametrize(("spec", "rival"), [(PLAIN, NonzeroLoop), (PLAIN, MaskLoop), (FREE, RoutingFreeLoop)])
def test_a_rival_has_our_weights_and_gives_our_gradients(spec, rival):
    layer = build_layer(spec, SIZE, CPU)
    work = Work.on(draw_tokens(layer, SIZE, CPU, 0.25))
    other = rival(layer)
    ours = dict(layer.named_parameters())
    theirs = other.translate(dict(other.named_parameters()))
    assert theirs.keys() == ours.keys()
    assert all(theirs[name].equal(ours[name]) for name in ours)
    outcome = work.outcome(other)
    found = {"y": outcome.pop("y"), "x": outcome.pop("x")} | other.translate(outcome)
    expected = work.outcome(with_path(layer, "reference"))
    check("rival", as_gradients(found), as_gradients(expected), 1e-5, work="test", reference="reference")
