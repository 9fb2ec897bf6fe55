"""Parameter counts that papers state."""

import pytest
import timm
import torch

import vmoe
from vmoe.backbones import gpt2
from vmoe.moe import Mlp, MoESpec, SelfRouting, TopK


def count(module, part=""):
    return sum(parameter.numel() for name, parameter in module.named_parameters() if part in name)


@pytest.mark.parametrize(
    ("gate", "total", "of_gates"), [(TopK(), 520_809_216, 73_728), (SelfRouting(), 520_735_488, 0)]
)
def test_gpt2_small_with_eight_experts_in_every_block(gate, total, of_gates):
    """520.81 and 520.74 million with nanoGPT's choices: no biases, 50,304 tokens (arXiv 2604.00421, table 1)."""
    spec = MoESpec(gate=gate, experts=Mlp(hidden="host"), num_experts=8, layers="all")
    with torch.device("meta"):
        model = gpt2.create_model("gpt2", spec, bias=False, vocab_size=50_304)
    assert count(model) == total
    assert count(model, ".gate.") == of_gates  # 12 · 768 · 8 for a learned router
    embeddings, experts = 768 * (50_304 + 1_024), 8 * 2 * 768 * 3072
    attention, norms = 4 * 768**2, 2 * 768
    assert total == embeddings + 12 * (attention + norms + experts) + 768 + of_gates


def test_deit_small():
    with torch.device("meta"):
        assert count(timm.create_model("deit_small_patch16_224")) == 22_050_664
        moe = vmoe.create_model("deit_small_patch16_224", "topk")
    # six layers of 8 experts of half the width in place of their MLPs, and a router each
    mlp = 2 * 384 * 1536 + 1536 + 384
    experts = 8 * (2 * 384 * 768 + 768 + 384)
    assert count(moe) == 22_050_664 + 6 * (experts + 8 * 384 - mlp)
