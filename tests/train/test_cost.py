"""Accounts: what is predicted is what torch counts."""

import pytest
import torch
from memory import ALONE, tiny_config
from torch.utils.flop_counter import FlopCounterMode

import vmoe
from vmoe.cli.tasks import ImageAssembly
from vmoe.train import cost

VIT = {"img_size": 8, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 3}
TOKENS = 5


def measure_cost(model, size=8):
    """What an image of that size costs."""
    assembly = ImageAssembly(tiny_config(f"data.image_size={size}"))
    return cost.measure_cost(model, assembly.task(assembly.entry(("a", "b", "c")), None, ALONE.device))


def tiny_vit(moe):
    torch.manual_seed(0)
    return vmoe.create_model("vit_tiny_patch16_224", moe, **VIT)


@pytest.mark.parametrize("gate", ["dense", "topk", "self", "random", "routing_free"])
def test_predicted_flops_are_those_torch_counts_on_other_images(gate):
    model = tiny_vit({"gate": gate, "num_experts": 4}).eval()
    predicted = measure_cost(model)
    images = torch.randn(6, 3, 8, 8)
    if gate == "routing_free":  # a threshold in the middle of the scores: some pairs are active, some are not
        for _, layer in vmoe.moe.moe_layers(model):
            layer.gate.bias.data.fill_(1.0)
    with vmoe.record(model) as routings, FlopCounterMode(display=False) as counter:
        logits = model(images)
    with FlopCounterMode(display=False) as backward:
        logits.sum().backward()
    density = {name: float(routing.active.float().mean()) for name, routing in routings.items()}
    pairs = {name: int(routing.count_pairs()) for name, routing in routings.items()}
    if gate == "routing_free":
        assert 0 < density["blocks.1.mlp"] < 1
    assert predicted.flops_per_unit(density) * 6 == pytest.approx(counter.get_total_flops(), rel=1e-6)
    total = counter.get_total_flops() + backward.get_total_flops()
    assert 6 * predicted.fixed_train_flops + predicted.train_flops_on_rows(pairs) == pytest.approx(total, rel=1e-9)


def test_active_parameters_of_top_k_leave_out_the_experts_not_taken():
    dense = sum(p.numel() for p in tiny_vit("dense").parameters())
    predicted = measure_cost(tiny_vit({"gate": "topk", "num_experts": 4, "experts": {"kind": "mlp", "hidden": "host"}}))
    one_mlp = 32 * 128 + 128 + 128 * 32 + 32
    router = 4 * 32
    assert predicted.params == dense + 3 * one_mlp + router
    assert predicted.active_params({"blocks.1.mlp": 2 / 4}) == dense + one_mlp + router


def test_measuring_changes_nothing():
    model = tiny_vit("topk")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    measure_cost(model)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_activation_bytes_grow_with_the_image():
    small, large = (
        measure_cost(vmoe.create_model("vit_tiny_patch16_224", "topk", **{**VIT, "img_size": size}), size)
        for size in (8, 16)
    )
    assert large.activation_bytes > 3 * small.activation_bytes  # 17 tokens for 5
