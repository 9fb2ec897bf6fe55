"""Analytic gradients against differences, in float64: whole layers of every gate, experts and dispatch path, and the
custom operators alone."""

from dataclasses import replace

import pytest
import torch
from small_moe import COMBINATIONS, tokens
from torch import nn
from torch.func import functional_call

from vmoe.moe import (
    AutonomyOfExperts,
    Dense,
    ExpertChoice,
    HostMlp,
    LowRankGlu,
    MoESpec,
    Random,
    RoutingFree,
    SelfRouting,
    Soft,
    TopK,
    balance_for,
    build_dense,
    build_moe,
    record,
)
from vmoe.moe.dispatch.grouped_linear import grouped_linear

NUM_EXPERTS, DIM, TOKENS = 3, 3, 4
MARGIN = 1e-4  # of every comparison that a gate makes; differences step by 1e-6

# The gates' other forms, with experts by which each can score.
VARIANTS = {
    "topk-all": TopK(k=2, renormalize=False, balance=0.5, z_loss=0.5),
    "topk-bias": TopK(k=2, bias_rate=0.05, balance=0.5),
    "topk-jitter": TopK(k=2, jitter=0.3),
    "self-residual": SelfRouting(k=2, input="residual", renormalize=False),
    "aoe-all": AutonomyOfExperts(k=2, renormalize=False, balance=0.5),
    "routing_free-l1": RoutingFree(norm="l1", start=1.0, balance_start=1.0),
    "routing_free-linf": RoutingFree(norm="linf", start=1.0, balance_start=1.0),
    "expert_choice-batch": ExpertChoice(capacity_factor=1.5, group="batch"),
    "soft-plain": Soft(slots=2, normalize=False),
}
SPECS = COMBINATIONS | {name: MoESpec(gate=gate, experts=LowRankGlu()) for name, gate in VARIANTS.items()}


def small(name, path):
    """A layer of few parameters, all drawn anew, so that no scale is 1 and no bias 0."""
    widths = {"hidden": 2, "rank": 2} if isinstance(SPECS[name].experts, LowRankGlu) else {"hidden": 2}
    spec = replace(
        SPECS[name],
        experts=replace(SPECS[name].experts, **widths),
        num_experts=NUM_EXPERTS,
        shared_experts=int(name in VARIANTS),
        dispatch=path,
    )
    host = HostMlp(
        dim=DIM,
        hidden=8,
        activation=nn.GELU(),
        bias=True,
        std_in=1,
        std_out=1,
        norm=nn.LayerNorm(DIM),
        tokens=TOKENS // 2,
    )
    layer = build_moe(spec, host).double().train("jitter" in name)
    generator = torch.Generator().manual_seed(5)
    for parameter in layer.parameters():
        parameter.data.normal_(std=0.7, generator=generator)
    if isinstance(spec.gate, RoutingFree):
        layer.gate.scale.data.abs_().add_(1)
    if isinstance(spec.gate, TopK) and spec.gate.bias_rate:
        layer.gate.bias_steps.copy_(torch.tensor([-3, 0, 4]))
    return layer


def gap(ordered, k):
    """Between the k-th and the next of each row, if there is a next."""
    return (ordered[:, k - 1] - ordered[:, k]).min() if k < ordered.shape[1] else torch.inf


def margin(layer, routing, x):
    """How far the gate is from any other decision."""
    spec, scores = layer.gate.spec, routing.scores
    if isinstance(spec, Soft) or (isinstance(spec, Random) and spec.source != "fixed"):
        return torch.inf
    if isinstance(spec, RoutingFree):
        z = layer.experts.features(x.flatten(0, 1)).abs().flatten(0, 1)
        kinks = {"l2": z.norm(dim=1).min(), "l1": z.min(), "linf": gap(z.sort(descending=True).values, 1)}[spec.norm]
        return min((scores - spec.threshold / spec.temperature).abs().min(), kinks)
    if spec.kind == "relu":
        return scores.abs().min()
    if isinstance(spec, ExpertChoice):
        groups = 2 if spec.group == "sequence" else 1
        capacity = int(routing.active.sum()) // groups // NUM_EXPERTS
        columns = scores.softmax(-1).unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
        return gap(columns.sort(descending=True).values, capacity)
    ranked = scores
    if isinstance(spec, TopK) and spec.bias_rate:
        ranked = scores.softmax(-1) + spec.bias_rate * layer.gate.bias_steps
    return gap(ranked.sort(descending=True).values, spec.k)


@pytest.mark.parametrize("path", ["reference", "grouped", "tiled"])
@pytest.mark.parametrize("name", SPECS)
def test_gradients_of_a_layer(name, path):
    """Of x and every trained parameter, through the output and the balance loss."""
    layer = small(name, path)
    balance = balance_for(layer)
    trained = {key: p.detach().clone() for key, p in layer.named_parameters() if p.requires_grad}
    x = tokens(2, TOKENS // 2, DIM, dtype=torch.float64)

    def function(x, *values):
        torch.manual_seed(0)  # the same noise in every forward
        with record(layer) as routings:
            y = functional_call(layer, dict(zip(trained, values, strict=True)), x)
            return y, torch.as_tensor(balance(routings), dtype=torch.float64)

    torch.manual_seed(0)
    with record(layer) as routings, torch.no_grad():
        layer(x)
        assert margin(layer, routings[""], x) > MARGIN
    leaves = [value.requires_grad_() for value in (x, *trained.values())]
    assert torch.autograd.gradcheck(function, leaves, fast_mode=True)  # along random directions


@pytest.mark.parametrize("experts", [SPECS[f"topk-{kind}"].experts for kind in ("mlp", "glu", "lowrank_glu")])
def test_gradients_of_dense_experts(experts):
    widths = {"hidden": 2, "rank": 2} if isinstance(experts, LowRankGlu) else {"hidden": 2}
    host = HostMlp(dim=DIM, hidden=8, activation=nn.SiLU(), bias=True, std_in=1, std_out=1)
    layer = build_dense(MoESpec(gate=Dense(), experts=replace(experts, **widths)), host).double()
    parameters = {key: p.detach().clone().requires_grad_() for key, p in layer.named_parameters()}
    x = tokens(2, 2, DIM, dtype=torch.float64).requires_grad_()

    def function(x, *values):
        return functional_call(layer, dict(zip(parameters, values, strict=True)), x)

    assert torch.autograd.gradcheck(function, (x, *parameters.values()))


# --- The custom operators --------------------------------------------------------------------------------

# Rows, ends of the groups, features in and out.
SIZES = {
    "plain": (6, [2, 4, 6], 4, 5),
    "an empty group": (5, [2, 2, 5], 3, 7),
    "the first group empty": (3, [0, 1, 3], 3, 2),
    "only the last group": (3, [0, 0, 3], 1, 1),
    "no rows": (0, [0, 0, 0], 3, 5),
    "one row": (1, [0, 1, 1], 5, 3),
    "rows beyond the last end": (7, [1, 1, 4], 3, 5),
    "all rows beyond": (2, [0, 0, 0], 3, 5),
    "one expert": (3, [3], 3, 5),
}


def operands(size, bias=True, dtype=torch.float64):
    rows, ends, inside, outside = SIZES[size]
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    weight = draw(len(ends), outside, inside)
    return draw(rows, inside), weight, draw(len(ends), outside) if bias else None, torch.tensor(ends)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_grouped_linear_is_a_linear_map_for_each_row(size, bias):
    """The output and gradients of a loop over rows; 0 beyond the last end."""
    x, weight, biases, ends = operands(size, bias)
    y = grouped_linear(x, weight, biases, ends)
    expected = torch.zeros_like(y)
    for row in range(min(len(x), int(ends[-1]))):
        e = int((ends <= row).sum())
        expected[row] = weight[e] @ x[row] + (biases[e] if bias else 0)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-14)
    probe = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
    leaves = [x, weight, *([biases] if bias else [])]
    found = torch.autograd.grad((y * probe).sum(), leaves)
    wanted = torch.autograd.grad((expected * probe).sum() + 0 * sum(leaf.sum() for leaf in leaves), leaves)
    for got, gradient in zip(found, wanted, strict=True):
        torch.testing.assert_close(got, gradient, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("size", "bias"), [*((size, True) for size in SIZES), ("rows beyond the last end", False)])
def test_grouped_linear_is_a_proper_operator(size, bias):
    torch.library.opcheck(torch.ops.vmoe.grouped_linear.default, operands(size, bias))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_grouped_linear_is_a_proper_operator_in_lower_precision(dtype):
    torch.library.opcheck(
        torch.ops.vmoe.grouped_linear.default, operands("an empty group", dtype=dtype), atol=0.05, rtol=0.05
    )


def test_grouped_linear_takes_transposed_operands():
    """As its own backward pass gives it."""
    x, weight, _, ends = operands("an empty group")
    x, weight = x.detach().mT.contiguous().mT, weight.detach().mT.contiguous().mT
    assert not x.is_contiguous()
    expected = grouped_linear(x.contiguous(), weight.contiguous(), None, ends)
    torch.testing.assert_close(grouped_linear(x, weight, None, ends), expected, rtol=1e-12, atol=1e-14)
    torch.library.opcheck(torch.ops.vmoe.grouped_linear.default, (x, weight, None, ends))


@pytest.mark.parametrize("size", SIZES)
def test_grouped_outer_is_a_proper_operator(size):
    x, weight, _, ends = operands(size)
    y = torch.randn(len(x), weight.shape[1], generator=torch.Generator().manual_seed(2), dtype=x.dtype)
    torch.library.opcheck(torch.ops.vmoe.grouped_outer.default, (y, x.detach(), ends))
    products = torch.ops.vmoe.grouped_outer(y, x.detach(), ends)
    expected = torch.zeros_like(weight)
    for row in range(min(len(x), int(ends[-1]))):
        expected[int((ends <= row).sum())] += torch.outer(y[row], x[row])
    torch.testing.assert_close(products, expected.detach(), rtol=1e-12, atol=1e-14)


def test_a_broadcast_gradient():
    """``y.sum()`` gives the backward pass a gradient of stride 0."""
    x, weight, biases, ends = operands("rows beyond the last end")
    grouped_linear(x, weight, biases, ends).sum().backward()
    assert biases.grad.tolist() == [[1.0] * 5, [0.0] * 5, [3.0] * 5]
    torch.testing.assert_close(x.grad[0], weight[0].detach().sum(0))
    assert not x.grad[4:].any()
