"""Nothing in a layer waits for the device: its forward and backward run where no tensor has values to read."""

import pytest
import torch
from small_moe import COMBINATIONS, DIM, build
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.utils._python_dispatch import TorchDispatchMode

from vmoe.moe import record
from vmoe.moe.dispatch import DispatchOptions

VARIABLE = ("relu", "routing_free")
COMBINATIONS = {name: spec for name, spec in COMBINATIONS.items() if name.endswith("-mlp") or "lowrank" in name}


@pytest.fixture(params=["grouped", "tiled"])
def path(request):
    """Of both, the operators' insides are not run here: what they wait for is theirs to say."""
    return request.param


def step(spec, options: DispatchOptions, *, listen: bool = False) -> None:
    """A forward and backward of a layer with this spec among tensors that have shapes, but no values."""
    layer = build(spec).train()
    layer.dispatch = options
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        for module in layer.modules():
            for tensors in (module._parameters, module._buffers):
                for key, tensor in tensors.items():
                    tensors[key] = None if tensor is None else mode.from_tensor(tensor, static_shapes=True)
        x = torch.randn(2, 9, DIM, requires_grad=True)
        if listen:
            with record(layer):
                y = layer(x)
        else:
            y = layer(x)
        y.square().sum().backward()
    assert x.grad.shape == x.shape


@pytest.mark.parametrize("listen", [False, True])
@pytest.mark.parametrize("name", [name for name in COMBINATIONS if not name.startswith(VARIABLE)])
def test_a_gate_with_a_fixed_number_of_pairs(name, path, listen):
    step(COMBINATIONS[name], DispatchOptions(path), listen=listen)


@pytest.mark.parametrize("name", [name for name in COMBINATIONS if name.startswith(VARIABLE)])
def test_a_gate_with_room_for_its_pairs(name, path):
    step(COMBINATIONS[name], DispatchOptions(path, capacity=0.6))


@pytest.mark.parametrize("name", [name for name in COMBINATIONS if name.startswith(VARIABLE)])
def test_without_room_their_number_is_read(name, path):
    with pytest.raises((DataDependentOutputException, DynamicOutputShapeException), match="nonzero"):
        step(COMBINATIONS[name], DispatchOptions(path))


@pytest.mark.parametrize("capacity", [None, 0.9])
@pytest.mark.parametrize("name", COMBINATIONS)
def test_at_most_one_number_is_read_a_layer(name, path, capacity):
    read = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function in (torch.ops.aten.nonzero.default, torch.ops.aten._local_scalar_dense.default):
                read.append(function)
            return function(*args, **(kwargs or {}))

    layer = build(COMBINATIONS[name]).train()
    layer.dispatch = DispatchOptions(path, capacity=capacity)
    x = torch.randn(2, 9, DIM, generator=torch.Generator().manual_seed(0)).requires_grad_()
    with Watch():
        layer(x).square().sum().backward()
    assert len(read) == (capacity is None and name.startswith(VARIABLE))
