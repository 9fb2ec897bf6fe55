"""torch.compile captures layers whole, and what it makes of them computes the same.

Gates with a fixed number of pairs need nothing for it; those without need room for their pairs (`capacity`) or
`torch._dynamo.config.capture_dynamic_output_shape_ops`, since the number of their pairs is data.
"""

import pytest
import torch
from small_moe import COMBINATIONS, DIM, build, tokens
from torch import nn
from torch._dynamo import config as dynamo_config
from torch._dynamo.testing import CompileCounter
from torch.testing import assert_close

from vmoe.moe import LowRankGlu, MoE, MoESpec, Relu, RoutingFree, SelfRouting, TopK, record
from vmoe.moe.dispatch import DispatchOptions

VARIABLE = ("relu", "routing_free")


@pytest.fixture(autouse=True)
def forget():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture(params=[name for name in COMBINATIONS if name.endswith("-mlp") or "-lowrank" in name])
def name(request):
    return request.param


def step(function, layer: MoE, x):
    """Output and every gradient."""
    layer.zero_grad()
    x = x.clone().requires_grad_()
    torch.manual_seed(3)
    y = function(x)
    y.square().sum().backward()
    return y.detach(), [x.grad, *(p.grad for p in layer.parameters() if p.requires_grad)]


def test_one_graph_that_computes_the_same(name):
    layer, x = build(COMBINATIONS[name]).train(), tokens(2, 9, DIM)
    expected = step(layer, layer, x)
    with dynamo_config.patch(capture_dynamic_output_shape_ops=name.startswith(VARIABLE)):
        found = step(torch.compile(layer, fullgraph=True, backend="aot_eager"), layer, x)
    assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("gate", [Relu(), RoutingFree(start=1.0)], ids=lambda g: g.kind)
@pytest.mark.parametrize("path", ["grouped", "tiled"])
@pytest.mark.parametrize("recompute", [False, True])
def test_room_for_the_pairs_makes_one_graph_of_any_gate(gate, path, recompute):
    layer, x = build(MoESpec(gate=gate, num_experts=4, dispatch=path)).train(), tokens(2, 9, DIM)
    expected = step(layer, layer, x)
    layer.dispatch = DispatchOptions(path, recompute, capacity=1.0)
    found = step(torch.compile(layer, fullgraph=True, backend="aot_eager"), layer, x)
    assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_recorded_forward_is_one_graph_too():
    layer, x = build(MoESpec(gate=TopK(jitter=0.1, bias_rate=0.1), shared_experts=1)), tokens(2, 9, DIM)
    with record(layer.eval()) as routings:
        y = torch.compile(layer, fullgraph=True, backend="eager")(x)
    with record(layer) as expected:
        assert_close(y, layer(x))
    assert routings[""].active.equal(expected[""].active)


class Blocks(nn.Module):
    """Two layers on a residual, with something between them."""

    def __init__(self, spec):
        super().__init__()
        self.layers = nn.ModuleList(build(spec, seed=seed) for seed in range(2))
        self.norm = nn.LayerNorm(DIM)

    def forward(self, x):
        for layer in self.layers:
            x = x + layer(self.norm(x))
        return x


@pytest.mark.parametrize("gate", [Relu(), RoutingFree(start=1.0)], ids=lambda g: g.kind)
def test_a_variable_number_of_pairs_breaks_the_graph_unless_dynamo_may_capture_it(gate):
    """Where each layer reads the number, every frame on the stack is cut in two."""
    model, x = Blocks(MoESpec(gate=gate, num_experts=4)), tokens(2, 9, DIM)
    counter = CompileCounter()
    assert_close(torch.compile(model, backend=counter)(x), model(x))
    assert counter.frame_count > 2
    torch._dynamo.reset()
    counter = CompileCounter()
    with dynamo_config.patch(capture_dynamic_output_shape_ops=True):
        assert_close(torch.compile(model, backend=counter)(x), model(x))
    assert counter.frame_count == 1


def test_batches_of_other_sizes():
    layer = build(MoESpec(gate=SelfRouting(), experts=LowRankGlu(hidden=8, rank=3)))
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for sequences in (2, 3, 5):
        x = tokens(sequences, 9, DIM)
        assert_close(compiled(x), layer(x), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMBINATIONS)
def test_inductor(name):
    layer, x = build(COMBINATIONS[name]).eval(), tokens(2, 9, DIM)
    expected = step(layer, layer, x)
    with dynamo_config.patch(capture_dynamic_output_shape_ops=name.startswith(VARIABLE)):
        found = step(torch.compile(layer, fullgraph=True), layer, x)
    assert_close(found, expected, rtol=1e-4, atol=1e-4)
