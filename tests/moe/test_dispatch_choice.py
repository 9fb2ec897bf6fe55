"""Which path a layer takes: by device, type and experts, said once."""

import logging

import pytest
import torch
from small_moe import DIM, build, tokens
from torch import nn

from vmoe.moe import MoESpec, TopK
from vmoe.moe.activations import ACTIVATIONS, identify_activation
from vmoe.moe.dispatch import choice, limits
from vmoe.moe.dispatch.choice import choose_path


@pytest.fixture(autouse=True)
def forget():
    choose_path.cache_clear()
    yield
    choose_path.cache_clear()


def layer_with(activation=None, **host):
    layer = build(MoESpec(gate=TopK(), num_experts=4), **host)
    if activation is not None:
        layer.experts.activation, layer.experts.activation_name = activation, identify_activation(activation)
    return layer


def test_the_fused_path_on_a_cpu():
    for dtype in (torch.float32, torch.float64):
        assert choice.choose(tokens(1, DIM, dtype=dtype), layer_with().experts) == "tiled"


@pytest.mark.parametrize("compiling", [False, True])
def test_what_the_fused_path_cannot_do_goes_elsewhere(compiling):
    expected = "grouped" if compiling else "reference"
    assert choose_path("cpu", torch.float32, "of this", compiling) == expected


def test_an_unknown_activation_and_dropout_are_no_reason_to_fail():
    x = tokens(1, 5, DIM)
    torch.manual_seed(0)
    assert layer_with(nn.Mish())(x).isfinite().all()
    dropping = layer_with(dropout_hidden=0.5).train()
    assert choice.choose(x.flatten(0, 1), dropping.experts) == "reference"
    assert not dropping(x).equal(dropping(x))
    assert choice.choose(x.flatten(0, 1), dropping.eval().experts) == "tiled"


@pytest.mark.parametrize("path", ["tiled", "triton"])
@pytest.mark.parametrize(("activation", "dropout"), [(nn.Mish(), 0.0), (None, 0.5)], ids=["mish", "dropout"])
def test_a_fused_path_by_name_refuses_what_it_cannot_compute(path, activation, dropout):
    layer = build(MoESpec(gate=TopK(), num_experts=4, dispatch=path), dropout_hidden=dropout).train()
    if activation is not None:
        layer.experts.activation, layer.experts.activation_name = activation, None
    with pytest.raises(ValueError, match=f"moe.dispatch is '{path}', but .*; allowed: auto, reference, grouped"):
        layer(tokens(1, 5, DIM))


@pytest.mark.parametrize(
    ("capability", "dtype", "installed", "path"),
    [
        ((9, 0), torch.bfloat16, True, "triton"),
        ((8, 0), torch.float16, True, "triton"),
        ((8, 6), torch.float32, True, "triton"),
        ((9, 0), torch.float64, True, "grouped"),
        ((7, 5), torch.float16, True, "grouped"),
        ((9, 0), torch.bfloat16, False, "grouped"),
    ],
)
def test_on_a_gpu(monkeypatch, capability, dtype, installed, path):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(limits, "find_spec", lambda name: installed or None)
    assert choose_path("cuda:0", dtype, None, False) == path
    assert choose_path("cuda:0", dtype, "for a reason", False) == "grouped"


@pytest.mark.parametrize(
    ("dtype", "why"), [(torch.float32, "its kernels run on CUDA devices, not on cpu"), (torch.float64, "no float64")]
)
def test_triton_by_name_refuses_other_devices_and_types(monkeypatch, dtype, why):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    layer = build(MoESpec(gate=TopK(), num_experts=4, dispatch="triton")).to(dtype)
    with pytest.raises(ValueError, match=f"moe.dispatch is 'triton', but .*{why}"):
        layer(tokens(1, 5, DIM, dtype=dtype))


def test_a_choice_is_logged_once_with_its_reason(caplog):
    layer = layer_with()
    with caplog.at_level(logging.INFO, logger="vmoe"):
        for _ in range(3):
            layer(tokens(1, 5, DIM))
    assert [record.getMessage() for record in caplog.records] == [
        "experts on cpu in float32: tiled (the whole expert is one operator)"
    ]


class Wrapped(nn.Module):
    """As libraries define activations of their own."""

    def forward(self, x):
        return nn.functional.gelu(x, approximate="tanh")


@pytest.mark.parametrize(
    ("activation", "name"),
    [
        (nn.GELU(), "gelu"),
        (nn.functional.gelu, "gelu"),
        (Wrapped(), "gelu_tanh"),
        (nn.SiLU(inplace=True), "silu"),
        (lambda x: x * x.sigmoid(), "silu"),
        (nn.ReLU(), "relu"),
        (nn.PReLU(init=0.0), None),  # its slope is learned
        (nn.LeakyReLU(1e-6), None),
        (nn.Identity(), None),
        (nn.Mish(), None),
    ],
)
def test_activations_are_known_by_their_values(activation, name):
    assert identify_activation(activation) == name


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_derivatives_of_known_activations(name):
    known = ACTIVATIONS[name]
    a = torch.linspace(-6, 6, 50, dtype=torch.float64)  # not at relu's kink
    grad = torch.linspace(0.5, 2, 50, dtype=torch.float64)
    step = 1e-6
    slope = (known.forward(a + step, a.clone()) - known.forward(a - step, a.clone())) / (2 * step)
    torch.testing.assert_close(known.backward(grad.clone(), a), grad * slope, rtol=1e-6, atol=1e-8)
