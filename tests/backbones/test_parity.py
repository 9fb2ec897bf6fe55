"""Parameter counts that papers state."""

import timm
import torch

import vmoe
from vmoe.moe import HostMlp, Mlp, MoESpec, SelfRouting, TopK, build_moe

FULL_WIDTH = Mlp(hidden="host")


def count(module, part=""):
    return sum(parameter.numel() for name, parameter in module.named_parameters() if part in name)


def gpt2_small_layers(gate):
    """The 12 MoE layers of the Self-Routing paper's GPT-2 small: E = 8 experts of full width, without biases."""
    host = HostMlp(dim=768, hidden=3072, activation=torch.nn.functional.gelu, bias=False, std_in=0.02, std_out=0.02)
    with torch.device("meta"):
        spec = MoESpec(gate=gate, experts=FULL_WIDTH, num_experts=8)
        return torch.nn.ModuleList(build_moe(spec, host, layer) for layer in range(12))


def test_routers_of_gpt2_small():
    assert count(gpt2_small_layers(TopK()), "gate") == 73_728  # 12 · 768 · 8
    assert count(gpt2_small_layers(SelfRouting()), "gate") == 0


def test_gpt2_small_with_a_learned_router_has_52081_million_parameters():
    """nanoGPT's choices: no biases, 50,304 tokens, 1,024 positions, tied embeddings (arXiv 2604.00421, table 1)."""
    attention = 4 * 768**2
    norms = 2 * 768
    outside = 768 * (50_304 + 1_024) + 12 * (attention + norms) + 768
    total = outside + count(gpt2_small_layers(TopK()))
    assert total == 520_809_216
    assert round(total / 1e6, 2) == 520.81


def test_deit_small():
    with torch.device("meta"):
        assert count(timm.create_model("deit_small_patch16_224")) == 22_050_664
        moe = vmoe.create_model("deit_small_patch16_224", "topk")
    # six layers of 8 experts of half the width in place of their MLPs, and a router each
    mlp = 2 * 384 * 1536 + 1536 + 384
    experts = 8 * (2 * 384 * 768 + 768 + 384)
    assert count(moe) == 22_050_664 + 6 * (experts + 8 * 384 - mlp)
