"""Experts that two processes hold between them against one process that holds them all: outputs and gradients."""

import pytest
import torch
import torch.distributed
from small_moe import COMBINATIONS, DIM, build, tokens
from together import together
from torch.testing import assert_close

from vmoe.moe import ExpertPlace, MoESpec, TopK
from vmoe.moe.dispatch import DispatchOptions

WORLD = 2
GATES = ("topk", "self", "fixed", "hash", "aoe", "relu", "routing_free", "expert_choice")
SPECS = {name: spec for name, spec in COMBINATIONS.items() if name.split("-")[0] in GATES}
SPECS["shared"] = MoESpec(gate=TopK(k=1), num_experts=4, shared_experts=1)
WAYS = {
    "reference": DispatchOptions("reference"),
    "grouped": DispatchOptions("grouped"),
    "grouped, recomputed": DispatchOptions("grouped", recompute=True),
    "tiled": DispatchOptions("tiled"),
    "tiled, recomputed": DispatchOptions("tiled", recompute=True),
}
SPLITS = {"uneven": (1, 3), "one has none": (4, 0), "the other has none": (0, 4)}  # sequences
# Every gate by one path; two gates, without and with features, by all paths, and by a float32 product too.
CASES = [(name, "tiled", split) for name in SPECS for split in SPLITS]
CASES += [(name, way, "uneven") for name in ("self-glu", "routing_free-lowrank_glu") for way in WAYS if way != "tiled"]


def layer_of(name, way):
    layer = build(SPECS[name]).double()
    layer.dispatch = WAYS[way]
    return layer


def outputs(layer, x):
    """y, and the gradients by x and by each parameter, of a loss that is a sum over tokens."""
    x = x.clone().requires_grad_()
    y = layer(x)
    (y * y.detach().cos()).sum().backward()
    gradients = {name: parameter.grad for name, parameter in layer.named_parameters() if parameter.grad is not None}
    return y.detach(), x.grad, gradients


def inputs():
    return tokens(4, 9, DIM, dtype=torch.float64)


def run_cases(folder):
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    place = ExpertPlace(torch.distributed.group.WORLD)
    found = {}
    for case in CASES:
        name, way, split = case
        layer = layer_of(name, way)
        layer.hold_part(place)
        found[case] = outputs(layer, inputs().split(SPLITS[split])[rank])
    torch.save(found, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("expert_parallel")
    together(WORLD, folder, run_cases, str(folder))
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_two_processes_compute_what_one_does(found, case):
    name, way, _ = case
    layer = layer_of(name, way)
    held = {id(parameter) for _, _, parameter in layer.pair_parameters()}
    parameters = dict(layer.named_parameters())
    y, x_grad, gradients = outputs(layer, inputs())
    of_each = [each[case] for each in found]
    assert_close(torch.cat([each[0] for each in of_each]), y)
    assert_close(torch.cat([each[1] for each in of_each]), x_grad)
    assert held
    for parameter, expected in gradients.items():
        parts = [each[2][parameter] for each in of_each]
        if id(parameters[parameter]) in held:
            assert_close(torch.cat(parts), expected, msg=parameter)  # each process has those of its own experts, whole
        else:
            assert_close(sum(parts), expected, msg=parameter)


def test_experts_are_dealt_out_evenly_or_not_at_all(monkeypatch):
    monkeypatch.setattr(ExpertPlace, "parts", 3)
    with pytest.raises(ValueError, match="4 experts cannot be held by 3 processes; allowed: a divisor of 4"):
        layer_of("self-glu", "tiled").hold_part(ExpertPlace(None))
