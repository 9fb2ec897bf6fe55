"""The Triton kernels against the definition, output and every gradient, with memory that is never zero by luck.

`test_triton.py` runs this file in a process of its own: without a GPU, Triton interprets its kernels only if
TRITON_INTERPRET is set before anything imports it.
"""

import os
from itertools import product
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from vmoe.moe import HostMlp, Mlp, MoESpec, RoutingFree, TopK, build_moe
from vmoe.moe.dispatch.network import Inputs, Network
from vmoe.moe.dispatch.pairs import sort_pairs
from vmoe.moe.dispatch.triton import backward, forward, launch
from vmoe.moe.dispatch.triton.blocks import Blocks
from vmoe.moe.routing import route_threshold, route_top_k

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = {torch.float32: 1e-5, torch.float16: 3e-3, torch.bfloat16: 1e-2}
ACTIVATIONS = {
    "gelu": functional.gelu,
    "gelu_tanh": lambda a: functional.gelu(a, approximate="tanh"),
    "silu": functional.silu,
    "relu": functional.relu,
    "quick_gelu": lambda a: a * torch.sigmoid(1.702 * a),
}
E = 3
ROUTES = {
    "one": lambda s: route_top_k(s, 1, torch.Size([len(s)]), weights="all"),
    "two": lambda s: route_top_k(s, 2, torch.Size([len(s)]), weights="selected"),
    "every": lambda s: route_top_k(s, E, torch.Size([len(s)]), weights="selected"),
    "threshold": lambda s: route_threshold(s, 0.5, torch.Size([len(s)])),
    "one expert idle": lambda s: route_threshold(s - 100 * torch.eye(E, dtype=s.dtype)[2], 0.1, torch.Size([len(s)])),
    "all on one": lambda s: route_threshold(s.abs() - 100 * (torch.arange(E) != 1), 0.0, torch.Size([len(s)])),
    "nothing": lambda s: route_threshold(s, 1e6, torch.Size([len(s)])),
}
KINDS = {
    "mlp": "biases",
    "glu": "up",
    "lowrank_glu": "up z",
    "bare mlp": "",
    "z alone": "z biases",
}
ODD, EVEN = (17, 19, 5), (32, 64, 16)  # D, F, R


def make(kind, route="threshold", sizes=ODD, *, num_tokens=11, padding=3):
    """All inputs of the operator in float64, by name; and a gradient of y."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    has, (D, F, R) = KINDS[kind].split(), sizes
    routing = ROUTES[route](draw(num_tokens, E))
    pairs = sort_pairs(routing)
    tokens_P = torch.cat([pairs.tokens_P, pairs.tokens_P.new_zeros(padding)])
    weights_P = torch.cat([pairs.of(routing.weights), draw(padding)])
    inputs = R if "z" in has else D
    network = Network(
        draw(E, F, inputs) / inputs**0.5,
        0.3 * draw(E, F) if "biases" in has else None,
        draw(E, F, D) / D**0.5 if "up" in has else None,
        draw(E, D, F) / F**0.5,
        0.3 * draw(E, D) if "biases" in has else None,
    )
    z_PR = draw(len(tokens_P), R) if "z" in has else None
    x_TD, grad_TD = draw(num_tokens, D), draw(num_tokens, D)
    return (x_TD, z_PR, weights_P, tokens_P, pairs.ends_E, network), grad_TD


def define(x_TD, z_PR, weights_P, tokens_P, ends_E, network, activation):
    """``y_t = Σ_p w_p · down(act(gate(z_p or x_t)) ⊙ up(x_t))`` over the rows p of token t."""
    y_TD, start = torch.zeros_like(x_TD), 0
    for e, end in enumerate(ends_E.tolist()):
        rows = slice(start, end)
        gate, gate_bias, up, down, down_bias = (None if weight is None else weight[e] for weight in network)
        x_ND = x_TD[tokens_P[rows]]
        hidden = ACTIVATIONS[activation](functional.linear(x_ND if z_PR is None else z_PR[rows], gate, gate_bias))
        if up is not None:
            hidden = hidden * functional.linear(x_ND, up)
        y_ND = weights_P[rows, None] * functional.linear(hidden, down, down_bias)
        y_TD = y_TD.index_add(0, tokens_P[rows], y_ND)
        start = end
    return y_TD


def flat(inputs):
    """The tensors of an operator's inputs that have gradients, by name."""
    x_TD, z_PR, weights_P, *_, network = inputs
    tensors = {"x": x_TD, "z": z_PR, "weights": weights_P, **network._asdict()}
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


def place(inputs, dtype):
    """On the device, in a type; the pairs' weights in float32 as a gate makes them."""

    def move(tensor, to=dtype):
        return None if tensor is None else tensor.to(DEVICE, to)

    x_TD, z_PR, weights_P, tokens_P, ends_E, network = inputs
    weights_P = move(weights_P, torch.float32)
    return move(x_TD), move(z_PR), weights_P, tokens_P.to(DEVICE), ends_E.to(DEVICE), Network(*map(move, network))


def run(inputs, grad_TD, activation="gelu", keep=True):
    """The output and the gradients by name."""
    y_TD, hidden = forward(Inputs(*inputs, activation), keep)
    rows = len(inputs[3]) if keep else 0
    assert len(hidden.gate_PF) == rows
    assert len(hidden.up_PF) == (0 if inputs[-1].up_EFD is None else rows)
    grads = backward(grad_TD, Inputs(*inputs, activation), hidden)
    parts = {"x": grads.x_TD, "z": grads.z_PR, "weights": grads.weights_P, **grads.network._asdict()}
    return {"y": y_TD, **{name: grad for name, grad in parts.items() if grad is not None}}


def compare(case, activation="gelu", dtype=torch.float32, keep=True):
    inputs, grad_TD = case
    given = place(inputs, dtype)
    found = run(given, grad_TD.to(DEVICE, dtype), activation, keep)
    x_TD, z_PR, weights_P, tokens_P, ends_E, network = given
    z_PR = None if z_PR is None else z_PR.double()
    network = Network(*(None if weight is None else weight.double() for weight in network))
    exact = (x_TD.double(), z_PR, weights_P.double(), tokens_P, ends_E, network)
    leaves = {name: tensor.requires_grad_() for name, tensor in flat(exact).items()}
    y_TD = define(*exact, activation)
    loss = (y_TD * grad_TD.to(DEVICE, dtype)).sum() + 0 * sum(leaf.sum() for leaf in leaves.values())
    wanted = {"y": y_TD.detach(), **dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))}
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        got = found[name]
        assert got.dtype == (torch.float32 if name == "weights" else dtype), name
        assert got.shape == value.shape, name
        assert (got.double() - value).norm() <= TOLERANCE[dtype] * value.norm(), name


@pytest.fixture(autouse=True)
def no_memory_is_zero(monkeypatch):
    def spoil(tensor):
        return tensor.fill_(torch.nan if tensor.is_floating_point() else 1 << 28)

    for owner, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
        make_empty = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args, _make=make_empty, **kwargs: spoil(_make(*args, **kwargs)))


PATCHED = set()


@pytest.fixture(autouse=True)
def mended_interpreter(monkeypatch):
    """Mends Triton's interpreter: it multiplies the bits of bfloat16 as integers and truncates where a GPU rounds to
    bfloat16; and it patches the language anew for every launch and every call in a kernel, which takes most of its
    time, though once a function is enough.
    """
    if DEVICE == "cuda":
        return
    assert os.environ.get("TRITON_INTERPRET") == "1", "see test_triton.py"
    import numpy
    import triton.language as tl
    from triton.runtime import interpreter

    builder, TensorHandle = interpreter.InterpreterBuilder, interpreter.TensorHandle
    multiply, narrow, patch = builder.create_dot, builder.create_fp_trunc, interpreter._patch_lang

    def widen(operand):
        if operand.dtype.scalar != tl.bfloat16:
            return operand
        return TensorHandle((operand.data.astype(numpy.uint32) << 16).view(numpy.float32), tl.float32)

    def create_dot(self, a, b, *rest):
        return multiply(self, widen(a), widen(b), *rest)

    def create_fp_trunc(self, value, to):
        if to.scalar != tl.bfloat16:
            return narrow(self, value, to)
        rounded = torch.from_numpy(value.data.copy()).bfloat16().view(torch.int16)
        return TensorHandle(rounded.numpy().view(numpy.uint16), tl.bfloat16)

    monkeypatch.setattr(builder, "create_dot", create_dot)
    monkeypatch.setattr(builder, "create_fp_trunc", create_fp_trunc)

    def patch_once(function):
        if function not in PATCHED:
            PATCHED.add(function)
            patch(function)
        return SimpleNamespace(restore=lambda: None)

    monkeypatch.setattr(interpreter, "_patch_lang", patch_once)


@pytest.fixture
def small_blocks(monkeypatch):
    """So small that there are several tiles, columns and steps, and rests of each."""
    monkeypatch.setattr(launch, "row_block", lambda *_: 16)
    for name in ("product_blocks", "outer_blocks"):
        monkeypatch.setattr(launch, name, lambda *_, **__: Blocks(16, 16, 16, 4, 2))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_experts(kind, small_blocks):
    compare(make(kind))


@pytest.mark.parametrize("route", ["every", "one expert idle", "all on one", "nothing"])
def test_awkward_routings(route):
    compare(make("mlp", route, padding=0))


@pytest.mark.parametrize("route", ["threshold"])
def test_one_token(route):
    compare(make("lowrank_glu", route, num_tokens=1))


@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if name != "gelu"])
def test_every_activation(activation):
    compare(make("mlp"), activation)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_type(dtype):
    compare(make("glu"), dtype=dtype)
    compare(make("mlp", sizes=EVEN), dtype=dtype)


@pytest.mark.parametrize("kind", ["mlp", "lowrank_glu"])
def test_what_is_computed_again_is_what_would_have_been_kept(kind):
    inputs, grad_TD = make(kind)
    inputs, grad_TD = place(inputs, torch.float32), grad_TD.to(DEVICE, torch.float32)
    kept, again = run(inputs, grad_TD, keep=True), run(inputs, grad_TD, keep=False)
    for name, value in kept.items():
        assert torch.equal(value, again[name]), name


def test_padding_has_gradients_of_zero():
    (*inputs, network), grad_TD = make("lowrank_glu", padding=5)
    found = run(place((*inputs, network), torch.float32), grad_TD.to(DEVICE, torch.float32))
    assert not found["z"][-5:].any()
    assert not found["weights"][-5:].any()


def test_float64_is_refused():
    inputs, _ = make("mlp")
    with pytest.raises(ValueError, match="float64"):
        forward(Inputs(*place(inputs, torch.float64), "gelu"), True)


@pytest.mark.parametrize(
    ("gate", "experts", "capacity"), [(TopK(), Mlp(hidden=10), None), (RoutingFree(start=1.0), None, 1.0)]
)
def test_a_layer_by_its_name(gate, experts, capacity):
    """From the spec to the kernels: the layer's output and every gradient are those of the reference path."""
    outcomes = []
    for path in ("reference", "triton"):
        torch.manual_seed(0)
        spec = MoESpec(gate=gate, experts=experts, num_experts=4, dispatch=path, capacity=capacity)
        host = HostMlp(dim=12, hidden=24, activation=torch.nn.GELU(), bias=True, std_in=0.3, std_out=0.3)
        layer = build_moe(spec, host).to(DEVICE)
        x = functional.layer_norm(torch.randn(2, 5, 12), (12,)).to(DEVICE).requires_grad_()
        y = layer(x)
        y.square().sum().backward()
        outcomes.append([y, x.grad, *(parameter.grad for parameter in layer.parameters() if parameter.requires_grad)])
    for wanted, found in zip(*outcomes, strict=True):
        assert wanted.norm() > 0
        assert (found - wanted).norm() <= 1e-5 * wanted.norm()


@pytest.mark.slow
@pytest.mark.parametrize("keep", [True, False])
def test_the_operator_is_what_it_says_to_the_compiler(keep):
    inputs, _ = make("lowrank_glu", padding=0)
    *inputs, network = place(inputs, torch.float32)
    for tensor in flat((*inputs, network)).values():
        tensor.requires_grad_()
    checks = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_static")
    torch.library.opcheck(torch.ops.vmoe.experts, (*inputs, *network, "gelu", "triton", keep), test_utils=checks)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "route", "sizes"), list(product(KINDS, ROUTES, (ODD, EVEN))))
def test_every_kind_with_every_routing(kind, route, sizes, small_blocks):
    for dtype, keep in ((torch.float32, False), (torch.bfloat16, True), (torch.float16, True)):
        compare(make(kind, route, sizes, num_tokens=23), dtype=dtype, keep=keep)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "activation"), list(product(KINDS, ACTIVATIONS)))
def test_every_kind_with_every_activation(kind, activation):
    for dtype in TOLERANCE:
        compare(make(kind, "two", EVEN), activation, dtype)


@pytest.mark.slow
def test_two_runs_give_the_same_bits(small_blocks):
    inputs, grad_TD = make("mlp", "two", EVEN, num_tokens=99)
    inputs, grad_TD = place(inputs, torch.float32), grad_TD.to(DEVICE, torch.float32)
    first, second = run(inputs, grad_TD), run(inputs, grad_TD)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
