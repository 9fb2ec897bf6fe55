"""Every dispatch path and the experts against a loop over tokens and experts, outputs and every gradient."""

from functools import partial

import pytest
import torch
from small_moe import DIM, build, one_expert, tokens
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from vmoe.moe import Glu, LowRankGlu, Mlp, MoESpec, TopK
from vmoe.moe.dispatch import PATHS, DispatchOptions, grouped_mm, tiled
from vmoe.moe.routing import route_threshold, route_top_k

EXPERTS = {"mlp": Mlp(hidden=8), "glu": Glu(hidden=8), "lowrank_glu": LowRankGlu(hidden=8, rank=3)}
ROUTES = {
    "one": lambda s: route_top_k(s, 1, torch.Size([len(s)]), weights="all"),
    "two": lambda s: route_top_k(s, 2, torch.Size([len(s)]), weights="selected"),
    "every": lambda s: route_top_k(s, 4, torch.Size([len(s)]), weights="selected"),
    "threshold": lambda s: route_threshold(s, 0.5, torch.Size([len(s)])),
    "one expert idle": lambda s: route_threshold(s - 100 * torch.eye(4, dtype=s.dtype)[2], 0.1, torch.Size([len(s)])),
    "nothing": lambda s: route_threshold(s, 1e6, torch.Size([len(s)])),
}


def prepare(experts, num_tokens=7):
    layer = build(MoESpec(gate=TopK(), experts=EXPERTS[experts], num_experts=4)).double()
    x = tokens(num_tokens, DIM, dtype=torch.float64).requires_grad_()
    scores = torch.randn(num_tokens, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return layer, x, scores.requires_grad_()


def brute_force(layer, x, routing):
    """``y_t = Σ_{e active for t} w_{t,e} · Expert_e(x_t)``."""
    rows = []
    for t in range(len(x)):
        row = torch.zeros_like(x[t])
        for e in range(routing.num_experts):
            if routing.active[t, e]:
                row = row + routing.weights[t, e] * one_expert(layer, e, x[t])
        rows.append(row)
    return torch.stack(rows)


def gradients(y, x, scores, layer):
    leaves = [x, scores, *layer.experts.parameters()]
    probe = torch.randn(y.shape, generator=torch.Generator().manual_seed(3), dtype=y.dtype)
    found = torch.autograd.grad((y * probe).sum() + 0 * scores.sum(), leaves, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(leaf) if grad is None else grad for leaf, grad in zip(leaves, found, strict=True)]


WAYS = {
    "reference": ("reference", DispatchOptions()),
    "grouped": ("grouped", DispatchOptions()),
    "grouped, more room than pairs": ("grouped", DispatchOptions(capacity=1.0)),
    "grouped, recomputed": ("grouped", DispatchOptions(recompute=True)),
    "tiled": ("tiled", DispatchOptions()),
    "tiled, more room than pairs": ("tiled", DispatchOptions(capacity=1.0)),
    "tiled, recomputed": ("tiled", DispatchOptions(recompute=True)),
}


@pytest.fixture(params=WAYS)
def dispatch(request, monkeypatch):
    monkeypatch.setattr(tiled, "TILE", 2)  # several tiles an expert, and one that is not full
    path, options = WAYS[request.param]
    return partial(PATHS[path], options=options)


def features_of(layer, x, ahead):
    """Features of every token, for the experts that have some, if they are to be computed ahead."""
    return layer.experts.features(x) if ahead and layer.experts.feature_layers() else None


@pytest.mark.parametrize("ahead", [True, False])
@pytest.mark.parametrize("experts", EXPERTS)
@pytest.mark.parametrize("route", ROUTES)
def test_a_path_equals_a_loop_over_pairs(dispatch, experts, route, ahead):
    layer, x, scores = prepare(experts)
    routing = ROUTES[route](scores)
    y = dispatch(x, features_of(layer, x, ahead), routing, layer.experts)
    expected = brute_force(layer, x, routing)
    assert_close(y, expected, rtol=1e-10, atol=1e-12)
    for got, wanted in zip(gradients(y, x, scores, layer), gradients(expected, x, scores, layer), strict=True):
        assert_close(got, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("experts", EXPERTS)
@pytest.mark.parametrize("route", ["two", "threshold"])
@pytest.mark.parametrize("path", ["reference", "grouped", "tiled"])
def test_gradcheck(path, experts, route):
    layer, x, scores = prepare(experts, num_tokens=3)

    def function(x, scores):
        given = (x, features_of(layer, x, True), ROUTES[route](scores), layer.experts)
        return PATHS[path](*given, DispatchOptions())

    assert torch.autograd.gradcheck(function, (x, scores))


@pytest.mark.parametrize("experts", EXPERTS)
@pytest.mark.parametrize("route", ["one expert idle", "nothing"])
def test_an_idle_expert_gets_gradients_of_zero(dispatch, experts, route):
    layer, x, scores = prepare(experts)
    dispatch(x, features_of(layer, x, False), ROUTES[route](scores), layer.experts).sum().backward()
    idle = [2] if route == "one expert idle" else [0, 1, 2, 3]
    for parameter in layer.experts.parameters():
        assert parameter.grad is not None
        for e in range(4):
            assert bool(parameter.grad[e].any()) == (e not in idle)


@pytest.mark.parametrize("path", ["grouped", "tiled"])
def test_more_active_pairs_than_there_is_room_for_are_an_error(path):
    layer, x, scores = prepare("mlp")
    routing = ROUTES["every"](scores.detach())
    routing = type(routing)(routing.active, routing.weights, routing.scores, None, routing.shape)
    PATHS[path](x, None, routing, layer.experts, DispatchOptions(capacity=1.0))
    with pytest.raises(RuntimeError, match=r"more active pairs than moe\.capacity 0\.9 holds"):
        PATHS[path](x, None, routing, layer.experts, DispatchOptions(capacity=0.9))


def saved_rows(layer, x, routing, path, options):
    """Sizes of what autograd keeps, weights and inputs aside."""
    given = {tensor.data_ptr() for tensor in (x, *layer.experts.parameters())}
    sizes = {}

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in given:
            sizes[tensor.untyped_storage().data_ptr()] = (tensor.numel(), tensor)  # kept, or its address comes again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = PATHS[path](x, None, routing, layer.experts, options)  # alive until all is counted
    return y, [size for size, _ in sizes.values()]


@pytest.mark.parametrize(("experts", "rows_kept"), [("mlp", 1), ("glu", 2)])
@pytest.mark.parametrize("share", [0.25, 0.75])
def test_the_fused_path_keeps_what_the_activation_reads_of_active_pairs_or_nothing(experts, rows_kept, share):
    layer, x, scores = prepare(experts, num_tokens=40)
    routing = route_threshold(scores, scores.quantile(1 - share).item(), torch.Size([40]))
    hidden = 8 * int(routing.active.sum())
    _, kept = saved_rows(layer, x, routing, "tiled", DispatchOptions())
    assert sorted(size for size in kept if size >= hidden) == [hidden] * rows_kept
    _, kept = saved_rows(layer, x, routing, "tiled", DispatchOptions(recompute=True))
    assert max(kept) < hidden
    _, kept = saved_rows(layer, x, routing, "grouped", DispatchOptions(recompute=True))
    assert max(kept, default=0) < hidden


def test_without_gradients_the_fused_path_keeps_nothing():
    layer, x, scores = prepare("glu")
    operator = torch.ops.vmoe.experts.default
    kept = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            found = function(*args, **(kwargs or {}))
            if function is operator:
                kept.extend(found[1:])
            return found

    with torch.no_grad(), Watch():
        PATHS["tiled"](x, None, ROUTES["two"](scores), layer.experts, DispatchOptions())
    assert [tensor.numel() for tensor in kept] == [0, 0]


@pytest.mark.parametrize("capacity", [None, 1.0])
@pytest.mark.parametrize("path", ["grouped", "tiled"])
@pytest.mark.parametrize("experts", EXPERTS)
def test_flops_are_those_of_active_pairs(experts, path, capacity):
    layer, x, scores = prepare(experts)
    routing = ROUTES["threshold"](scores)
    per_pair = 2 * sum(product.size for product in layer.experts.all_layers())
    with FlopCounterMode(display=False) as forward:
        y = PATHS[path](x, None, routing, layer.experts, DispatchOptions(capacity=capacity))
    with FlopCounterMode(display=False) as backward:
        torch.autograd.grad(y.square().sum(), [x, *layer.experts.parameters()])
    pairs = int(routing.active.sum())
    bias_gradients = backward.get_total_flops() - 2 * pairs * per_pair  # of which some paths make products
    assert forward.get_total_flops() == pairs * per_pair
    assert (bias_gradients > 0) == (path == "grouped" and experts == "mlp")


@pytest.mark.parametrize("path", ["grouped", "tiled"])
@pytest.mark.parametrize("experts", EXPERTS)
def test_bfloat16_is_near_float32(experts, path):
    layer, x, scores = prepare(experts, num_tokens=50)
    layer, x, scores = layer.float(), x.detach().float().requires_grad_(), scores.detach().float().requires_grad_()
    routing = ROUTES["threshold"](scores)
    expected = PATHS["reference"](x, None, routing, layer.experts, DispatchOptions())
    with torch.autocast("cpu", torch.bfloat16):
        y = PATHS[path](x, None, routing, layer.experts, DispatchOptions()).float()
    pairs = zip([y, *gradients(y, x, scores, layer)], [expected, *gradients(expected, x, scores, layer)], strict=True)
    for got, wanted in pairs:
        assert (got - wanted).norm() <= 1e-2 * wanted.norm()


def operator_inputs(experts, keep, padding=0):
    """What the fused path hands to its operator: a list of 6 pairs, one expert without any, and rows of padding."""
    layer, x, _ = prepare(experts)
    layer = layer.float()
    gate, up, down = layer.experts.products
    weights = [gate.weight, gate.bias, None if up is None else up.weight, down.weight, down.bias]
    tokens_P, ends_E = torch.tensor([0, 3, 6, 2, 2, 5] + [0] * padding), torch.tensor([3, 3, 4, 6])
    z = torch.randn(6 + padding, 3, requires_grad=True) if experts == "lowrank_glu" else None
    rows = [x.detach().float().requires_grad_(), z, torch.rand(6 + padding, requires_grad=True), tokens_P, ends_E]
    return (*rows, *weights, "gelu", "tiled", keep)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("experts", EXPERTS)
def test_operator_contract(experts, keep):
    """Schema, fake, autograd and compiled autograd, by torch's own checks."""
    torch.library.opcheck(torch.ops.vmoe.experts.default, operator_inputs(experts, keep))


@pytest.mark.parametrize("experts", EXPERTS)
def test_padding_rows_compute_nothing_and_get_no_gradient(experts):
    inputs = operator_inputs(experts, True, padding=2)
    x, z, weights_P, *_ = inputs
    y = torch.ops.vmoe.experts(*inputs)[0]
    torch.ops.vmoe.experts(*inputs)[0].square().sum().backward()
    assert weights_P.grad[:6].all()
    assert not weights_P.grad[6:].any()
    assert z is None or not z.grad[6:].any()
    short = [None if value is None else value.detach()[:6] for value in (z, weights_P, inputs[3])]
    assert_close(torch.ops.vmoe.experts(x.detach(), *short, *inputs[4:])[0], y)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("ends", [[3, 3, 10, 16], [16, 16, 16, 16], [0, 0, 0, 5], [0, 0, 0, 0]], ids=str)
def test_products_by_torch_equal_the_loop_over_groups(ends, dtype, monkeypatch):
    """Its kernel for the CPU stands for the one of GPUs; rows past the end of the last group are filled with NaN."""
    generator = torch.Generator().manual_seed(5)
    x, y = (torch.randn(16, width, generator=generator).to(dtype) for width in (8, 16))
    weight, bias = (torch.randn(4, 16, *size, generator=generator).to(dtype) for size in ((8,), ()))
    ends = torch.tensor(ends)
    multiply = torch.nn.functional.grouped_mm

    def careless(*operands, offs):
        found = multiply(*operands, offs=offs)
        if found.dim() == 2:
            found[offs[-1] :] = torch.nan
        else:
            found[offs.diff(prepend=offs.new_zeros(1)) == 0] = torch.nan
        return found

    expected = [op(*given) for op, given in calls(x, y, weight, bias, ends)]
    tolerance = 1e-2 if dtype == torch.bfloat16 else 1e-5
    sums = torch.stack([part.sum(0) for part in y.float().tensor_split(ends)[:-1]])
    monkeypatch.setattr(torch.nn.functional, "grouped_mm", careless)
    monkeypatch.setattr(grouped_mm, "serves", lambda *_: True)
    for (op, given), wanted in zip(calls(x, y, weight, bias, ends), expected, strict=True):
        assert (op(*given) - wanted).norm() <= tolerance * wanted.norm()
    assert (grouped_mm.group_sums(y, ends) - sums).norm() <= tolerance * sums.norm()


def calls(x, y, weight, bias, ends):
    operators = torch.ops.vmoe
    return [
        (operators.grouped_linear, (x, weight, bias, ends)),
        (operators.grouped_linear, (x, weight, None, ends)),
        (operators.grouped_outer, (y, x, ends)),
    ]
