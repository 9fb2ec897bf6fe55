"""The edges: nothing active, one expert, one token, none at all, idle experts, low precision, copies; for every gate,
experts and dispatch path."""

import copy
import pickle
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from small_moe import COMBINATIONS, DIM, build, one_expert, tokens
from torch import nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from vmoe.moe import (
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
    Soft,
    TopK,
    balance_for,
    build_dense,
    build_moe,
    record,
)
from vmoe.moe.spec import FixedK

PATHS = ["reference", "grouped", "tiled"]
EXPERTS = {"mlp": Mlp(hidden=8), "glu": Glu(hidden=8), "lowrank_glu": LowRankGlu(hidden=8, rank=3)}
SPARSE = [name for name in COMBINATIONS if not name.startswith("soft")]  # Soft MoE's experts all work


def build_with(name, **values):
    """A layer of a combination with some values of its spec changed, in evaluation: uniform routing repeats."""
    return build(replace(COMBINATIONS[name], **values)).eval()


def routed(layer, x):
    with record(layer) as routings:
        y = layer(x)
        return y, routings[""]


def gradients(layer, loss):
    """Of every trained parameter, by name; None where there is none."""
    loss.backward()
    return {name: p.grad for name, p in layer.named_parameters() if p.requires_grad}


def close(got, expected):
    assert_close(got, expected, rtol=1e-4, atol=1e-5)


# --- Nothing active --------------------------------------------------------------------------------------


def silent(gate, experts, path, shared=0):
    """A layer in which no pair is ever active."""
    spec = MoESpec(gate=gate, experts=experts, num_experts=3, shared_experts=shared, dispatch=path)
    layer = build(spec)
    with torch.no_grad():
        if isinstance(gate, RoutingFree):
            layer.gate.bias.fill_(1e6)
        else:  # scores are the first coordinate times −1
            layer.gate.router.weight.zero_()[:, 0] = -1
    x = tokens(2, 3, DIM).abs()
    return layer, x.requires_grad_()


SILENT = [(RoutingFree(), "lowrank_glu"), *((Relu(), kind) for kind in EXPERTS)]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("gate", "kind"), SILENT)
def test_no_active_pair(gate, kind, path):
    """The output and every gradient are 0, not missing; the loss is 0; the coefficient falls."""
    layer, x = silent(gate, EXPERTS[kind], path)
    balance = balance_for(layer)
    with record(layer) as routings:
        y = layer(x)
        loss = balance(routings)
        assert int(routings[""].count_pairs()) == 0
    assert not y.any()
    assert loss == 0
    found = gradients(layer, y.sum() + loss)
    assert all(grad is not None and not grad.any() for grad in found.values())
    assert not x.grad.any()
    before = float(balance.coefficient)
    balance.step()
    assert 0 < float(balance.coefficient) < before


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("gate", "kind"), SILENT)
def test_shared_experts_still_serve_where_no_pair_is_active(gate, kind, path):
    layer, x = silent(gate, EXPERTS[kind], path, shared=1)
    y = layer(x)
    close(y.flatten(0, 1), layer.shared.everywhere(x.flatten(0, 1)))
    assert y.abs().sum(-1).min() > 0


# --- Few of everything -----------------------------------------------------------------------------------


def alone(gate):
    """The gate for a single expert."""
    if isinstance(gate, ExpertChoice):
        return replace(gate, capacity_factor=1.0)
    return replace(gate, k=1) if isinstance(gate, FixedK | Relu) else gate


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", SPARSE)
def test_a_single_expert(name, path):
    """Every token goes to it: with weight 1 by a softmax or 1/k, and by its score where that is the weight."""
    layer = build_with(name, num_experts=1, gate=alone(COMBINATIONS[name].gate), dispatch=path)
    x = tokens(2, 3, DIM)
    y, routing = routed(layer, x)
    if not isinstance(layer.gate.spec, RoutingFree | Relu):
        assert routing.active.all()
        assert routing.weights.flatten().tolist() == [1] * 6
    expected = [w * one_expert(layer, 0, x_D) for w, x_D in zip(routing.weights, x.flatten(0, 1), strict=True)]
    close(y.flatten(0, 1), torch.stack(expected))


@pytest.mark.parametrize("kind", EXPERTS)
def test_a_single_slot_of_a_single_expert_gives_every_token_the_same(kind):
    """Soft MoE with one slot: the expert of the tokens' weighted mean, for all of them."""
    layer = build(MoESpec(gate=Soft(slots=1), experts=EXPERTS[kind], num_experts=1))
    x = tokens(2, 3, DIM)
    y, routing = routed(layer, x)
    means = (routing.slots.dispatch[:, :, 0] * x).sum(1)
    close(y, torch.stack([one_expert(layer, 0, x_D) for x_D in means])[:, None].expand_as(y))


@pytest.mark.parametrize("kind", EXPERTS)
@pytest.mark.parametrize("renormalize", [True, False])
def test_a_bias_does_not_matter_where_every_expert_is_chosen(kind, renormalize):
    x = tokens(2, 3, DIM)
    layers = [
        build(MoESpec(gate=TopK(k=4, renormalize=renormalize, bias_rate=rate), experts=EXPERTS[kind], num_experts=4))
        for rate in (0.0, 0.5)
    ]
    layers[1].gate.bias_steps.copy_(torch.tensor([5, -3, 0, 2]))
    assert layers[1](x).equal(layers[0](x))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", SPARSE)
def test_an_idle_expert_gets_gradients_of_zero(name, path):
    """One token: the experts it does not use have gradients, and these are 0."""
    layer = build_with(name, dispatch=path)
    x = tokens(1, 1, DIM, seed=4)
    y, routing = routed(layer, x)
    used = routing.active[0].tolist()
    # Expert choice takes at least one token of a sequence, so its only token goes to every expert.
    assert not all(used) or isinstance(layer.gate.spec, ExpertChoice)
    gradients(layer, y.sum())
    for parameter in layer.experts.parameters():
        assert [bool(row.any()) for row in parameter.grad] == used


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", COMBINATIONS)
def test_no_tokens_at_all(name, path):
    """A batch whose last part is empty: the output too, and every gradient is there, of zeros."""
    layer = build_with(name, dispatch=path, shared_experts=1)
    for shape in [(1, 0, DIM), (0, 5, DIM)]:
        layer.zero_grad()
        x = tokens(*shape).requires_grad_()
        y = layer(x)
        assert y.shape == shape
        found = gradients(layer, y.sum())
        assert [key for key, grad in found.items() if grad is None or grad.any()] == []
        assert x.grad.shape == shape


@pytest.mark.parametrize("name", COMBINATIONS)
def test_a_token_of_zeros_has_finite_gradients(name):
    """Norms and unit vectors have no derivative at 0."""
    layer = build_with(name)
    x = tokens(2, 3, DIM)
    x[0, 1] = 0
    y = layer(x.requires_grad_())
    found = gradients(layer, y.square().sum())
    assert all(grad.isfinite().all() for grad in found.values())
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", COMBINATIONS)
def test_tokens_that_do_not_lie_in_order_in_memory(name, path):
    layer, x = build_with(name, dispatch=path), tokens(2, 3, DIM)
    strided = x.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    assert not strided.is_contiguous()
    assert_close(layer(strided), layer(x))


# --- Dispatch and precision ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMBINATIONS)
def test_all_paths_agree_on_a_layer(name):
    """Output, and gradients of everything."""
    x = tokens(2, 5, DIM)
    values = []
    for path in PATHS:
        layer, leaf = build_with(name, dispatch=path, shared_experts=1), x.clone().requires_grad_()
        y = layer(leaf)
        values.append([y, *gradients(layer, y.square().sum()).values(), leaf.grad])
    for reference, *others in zip(*values, strict=True):
        assert reference.abs().max() > 0
        for found in others:
            assert_close(found, reference, rtol=1e-4, atol=1e-5 * float(reference.detach().abs().max()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", COMBINATIONS)
def test_autocast(name, path, dtype):
    """Products are in the lower precision and scores are not; output and gradients are near those in float32."""
    layer = build_with(name, dispatch=path, shared_experts=1)
    x = tokens(2, 5, DIM).requires_grad_()
    expected = layer(x).detach()
    with torch.autocast("cpu", dtype):
        y, routing = routed(layer, x)
    assert y.dtype == dtype
    assert routing.scores.dtype == routing.weights.dtype == torch.float32
    found = gradients(layer, y.float().sum())
    assert all(grad.dtype == torch.float32 and grad.isfinite().all() for grad in found.values())
    assert x.grad.isfinite().all()
    if not isinstance(layer.gate.spec, RoutingFree):  # its weights come from products in the lower precision
        # four products and sums over two or three experts: some ten roundings relative to the largest terms
        assert_close(y.float(), expected, rtol=0, atol=10 * torch.finfo(dtype).eps * float(expected.abs().max()))


# --- Copies ----------------------------------------------------------------------------------------------

COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda layer: pickle.loads(pickle.dumps(layer))}


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("name", COMBINATIONS)
def test_a_copy_computes_the_same_and_is_its_own(name, way):
    """Also one taken while the layer is recorded."""
    layer, x = build_with(name, shared_experts=1), tokens(2, 3, DIM)
    expected = layer(x)
    with record(layer) as routings:
        other = COPIES[way](layer)
        with record(other) as routings_of_copy:
            assert other(x).equal(expected)
        assert (len(routings), len(routings_of_copy)) == (0, 1)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert layer(x).equal(expected)


# --- Shared experts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", COMBINATIONS)
def test_shared_experts_serve_every_token_with_weight_one(name, path):
    """They are added to the same layer without them: its experts are drawn alike whatever stands beside."""
    layer, without = build_with(name, shared_experts=2, dispatch=path), build_with(name, dispatch=path)
    without.gate.load_state_dict(layer.gate.state_dict())
    for ours, theirs in zip(layer.experts.parameters(), without.experts.parameters(), strict=True):
        assert ours.equal(theirs)
    x = tokens(2, 3, DIM)
    stack = SimpleNamespace(experts=layer.shared)  # `one_expert` reads the experts of a layer
    added = torch.stack([one_expert(stack, 0, x_D) + one_expert(stack, 1, x_D) for x_D in x.flatten(0, 1)])
    close(layer(x), without(x) + added.view_as(x))


@pytest.mark.parametrize("name", COMBINATIONS)
def test_flops_count_shared_experts(name):
    layer = build_with(name, shared_experts=2)
    with FlopCounterMode(display=False) as counter:
        _, routing = routed(layer, tokens(2, 9, DIM))
    rows = int(routing.count_rows())
    assert counter.get_total_flops() == 18 * layer.flops_per_token + rows * layer.flops_per_pair


# --- The gate that reads the residual stream -------------------------------------------------------------


def self_gate(read, norm, kind="mlp"):
    torch.manual_seed(0)
    spec = MoESpec(gate=SelfRouting(k=2, input=read), experts=EXPERTS[kind], num_experts=4)
    host = HostMlp(dim=DIM, hidden=8, activation=nn.GELU(), bias=True, std_in=0.3, std_out=0.3, norm=norm)
    return build_moe(spec, host)


@pytest.mark.parametrize("kind", EXPERTS)
def test_without_a_norm_the_residual_stream_is_the_normed_one(kind):
    x = torch.randn(2, 3, DIM, generator=torch.Generator().manual_seed(0))
    normed, residual = self_gate("normed", None, kind), self_gate("residual", nn.Identity(), kind)
    assert residual(x).equal(normed(x))


@pytest.mark.parametrize("kind", EXPERTS)
def test_the_gate_reads_before_the_norm_and_the_experts_after(kind):
    """Scaling a token leaves its norm's output, and changes its scores, hence only the weights."""
    norm = nn.LayerNorm(DIM, eps=0)
    layer = self_gate("residual", norm, kind)
    x = torch.randn(1, 5, DIM, generator=torch.Generator().manual_seed(0))
    for scale in (1, 3):
        y, routing = routed(layer, scale * x)
        best = scale * x[0, :, -4:]
        assert routing.scores.equal(best)
        expected = [
            sum(w * one_expert(layer, e, row) for e, w in enumerate(weights))
            for weights, row in zip(routing.weights, norm(x)[0], strict=True)
        ]
        close(y[0], torch.stack(expected))


# --- A dense model's experts -----------------------------------------------------------------------------


def dense(kind, **host):
    torch.manual_seed(0)
    described = {"hidden": 4 * DIM, "activation": nn.GELU(), "bias": True, "std_in": 0.3, "std_out": 0.3} | host
    layer = build_dense(MoESpec(gate=Dense(), experts=EXPERTS[kind]), HostMlp(dim=DIM, **described))
    for name, parameter in layer.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.3)
    return layer


@pytest.mark.parametrize("kind", EXPERTS)
@pytest.mark.parametrize("shape", [(2, 3, DIM), (2, 2, 3, DIM), (5, DIM), (1, 1, DIM), (1, 0, DIM)])
def test_dense_experts_are_one_expert_for_every_token(kind, shape):
    layer, x = dense(kind), tokens(*shape)
    rows = [one_expert(layer, 0, x_D) for x_D in x.reshape(-1, DIM)]
    close(layer(x), torch.stack(rows).view(shape) if rows else x)


@pytest.mark.parametrize("kind", EXPERTS)
def test_dense_experts_are_a_layer_of_one_expert(kind):
    layer = build(MoESpec(gate=Random(k=1, source="hash"), experts=EXPERTS[kind], num_experts=1))
    other, x = dense(kind), tokens(2, 3, DIM)
    other.experts.load_state_dict(layer.experts.state_dict())
    close(other(x), layer(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
@pytest.mark.parametrize("kind", EXPERTS)
def test_dense_experts_under_autocast(kind, dtype):
    layer, x = dense(kind), tokens(2, 3, DIM)
    with torch.autocast("cpu", dtype):
        y = layer(x)
    assert y.dtype == dtype
    expected = layer(x).detach()
    assert_close(y.float(), expected, rtol=0, atol=10 * torch.finfo(dtype).eps * float(expected.abs().max()))


@pytest.mark.parametrize("where", ["dropout_hidden", "dropout_out"])
@pytest.mark.parametrize("kind", EXPERTS)
def test_dense_experts_drop_in_training_only(kind, where):
    layer, without, x = dense(kind, **{where: 0.5}), dense(kind), tokens(2, 9, DIM)
    assert not layer.train()(x).equal(without(x))
    assert layer.eval()(x).equal(without(x))


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("kind", EXPERTS)
def test_copies_of_dense_experts(kind, way):
    layer, x = dense(kind), tokens(2, 3, DIM)
    assert COPIES[way](layer)(x).equal(layer(x))
