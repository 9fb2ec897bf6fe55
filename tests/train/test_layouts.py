"""Layouts on two processes against one: gradients, their norm and clipping, and what checkpoints hold."""

import copy

import pytest
import torch
from memory import ALONE
from together import together
from torch.testing import assert_close

import vmoe as package
from vmoe.config import ParallelConfig
from vmoe.train.distributed import Processes, start_processes
from vmoe.train.parallel import build_layout, gather_optimizer, gather_weights, load_optimizer, load_weights

VIT = {"patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2, "img_size": 8, "num_classes": 3}
MOE = {"gate": "routing_free", "num_experts": 4, "layers": "last1"}
LAYOUTS = {
    "ddp": ParallelConfig(),
    "experts": ParallelConfig(experts=2),
    "fsdp": ParallelConfig(strategy="fsdp"),
    "fsdp and experts": ParallelConfig(strategy="fsdp", experts=2),
}


def blocks_of(model):
    return model.blocks


def model_of():
    torch.manual_seed(0)
    return package.create_model("vit_tiny_patch16_224", moe=MOE, **VIT)


def images_of():
    return torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def steps(layout, processes):
    """Two steps in two micro-batches each, clipped; everything that a checkpoint would hold, and the norms."""
    model = layout.place(model_of())
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2, eps=1e-3)
    network, norms = layout.network(model), []
    here = images_of().view(2, processes.world, -1, 3, 8, 8)[:, processes.rank]
    for _ in range(2):
        with layout.no_sync(network):
            (network(here[0]).square().mean() / 2).backward()
        (network(here[1]).square().mean() / 2).backward()
        layout.reduce_gradients(model)
        norms.append(layout.gradient_norm(model))
        layout.clip(model, norms[-1], 0.1)
        clipped = layout.gradient_norm(model)
        optimizer.step()
        optimizer.zero_grad()
    weights = gather_weights(model, layout, first=processes.first)
    state = gather_optimizer(optimizer, model, layout, first=processes.first)
    return {"norms": torch.stack(norms), "clipped": clipped, "weights": weights, "optimizer": state}


def norm_of_one_nan(layout, processes):
    """The norm where the last process alone has a gradient that is no number."""
    model = layout.place(model_of())
    layout.network(model)(images_of()).sum().backward()
    if processes.rank == processes.world - 1:
        grad = model.blocks[1].mlp.experts.down.weight.grad
        (grad.to_local() if hasattr(grad, "to_local") else grad).fill_(torch.nan)
    return layout.gradient_norm(model)


def loaded(layout, source):
    """Whether what one process stored comes back the same from this layout."""
    model = layout.place(model_of())
    optimizer = torch.optim.AdamW(model.parameters())
    load_weights(model, source["weights"], layout)
    load_optimizer(optimizer, model, source["optimizer"], layout)
    return {
        "weights": gather_weights(model, layout, first=True),
        "optimizer": gather_optimizer(optimizer, model, layout, first=True),
    }


def in_every_layout(folder, source):
    found = {}
    with start_processes("cpu") as processes:
        for name in LAYOUTS:
            layout = build_layout(LAYOUTS[name], processes, blocks_of)
            found[name] = steps(layout, processes)
            if name != "ddp":  # where gradients are whole everywhere already, and one that differs is no gradient
                found[name]["nan"] = norm_of_one_nan(layout, processes)
            found[name]["loaded"] = loaded(layout, source)
    torch.save(found, f"{folder}/{processes.rank}.pt")


@pytest.fixture(scope="module")
def alone():
    return steps(build_layout(ParallelConfig(), ALONE, blocks_of), ALONE)


@pytest.fixture(scope="module")
def found(tmp_path_factory, alone):
    folder = tmp_path_factory.mktemp("layouts")
    together(2, folder, in_every_layout, str(folder), alone)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def assert_same_state(one, other, **tolerance):
    """Of an optimizer."""
    assert one["groups"] == other["groups"]
    assert_close(one["state"], other["state"], **tolerance)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_steps_are_those_of_one_process(found, alone, layout):
    first, second = (each[layout] for each in found)
    for part in ("norms", "clipped"):
        assert torch.equal(first[part], second[part])
        assert_close(first[part], alone[part])
    assert alone["clipped"] == pytest.approx(0.1, rel=1e-4)
    assert_close(first["weights"], alone["weights"])
    assert_same_state(first["optimizer"], alone["optimizer"])
    assert not second["weights"]
    assert not second["optimizer"]


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "ddp"])
def test_a_gradient_that_is_no_number_is_one_on_every_process(found, layout):
    assert all(each[layout]["nan"].isnan() for each in found)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_one_process_stored_loads_and_is_stored_the_same(found, alone, layout):
    for each in found:
        assert_close(each[layout]["loaded"]["weights"], alone["weights"], rtol=0, atol=0)
        assert_same_state(each[layout]["loaded"]["optimizer"], alone["optimizer"], rtol=0, atol=0)


def test_torchs_own_state_of_an_optimizer_loads(alone):
    """By numbers in place of names, as checkpoints had it once."""
    layout, model = build_layout(ParallelConfig(), ALONE, blocks_of), model_of()
    numbers = {name: number for number, (name, _) in enumerate(model.named_parameters())}
    stored = copy.deepcopy(alone["optimizer"])
    groups = [group | {"params": [numbers[name] for name in group.pop("names")]} for group in stored["groups"]]
    old = {"state": {numbers[name]: values for name, values in stored["state"].items()}, "param_groups": groups}
    optimizer = torch.optim.AdamW(model.parameters())
    load_optimizer(optimizer, model, old, layout)
    assert_same_state(gather_optimizer(optimizer, model, layout, first=True), alone["optimizer"], rtol=0, atol=0)


def test_the_state_of_other_groups_is_refused(alone):
    layout, model = build_layout(ParallelConfig(), ALONE, blocks_of), model_of()
    weights, biases = [p for p in model.parameters() if p.ndim > 1], [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW([{"params": weights}, {"params": biases}])
    with pytest.raises(ValueError, match=r"other groups of parameters.*allowed: model\.weights"):
        load_optimizer(optimizer, model, alone["optimizer"], layout)


def test_experts_are_dealt_out_over_a_divisor_of_the_processes():
    with pytest.raises(ValueError, match=r"parallel\.experts is 4 with 6 processes; allowed: 1, 2, 3, 6"):
        build_layout(ParallelConfig(experts=4), Processes(0, 6, 0, 6, torch.device("cpu")), blocks_of)
