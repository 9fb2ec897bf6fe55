"""transformers' experts, in each of its implementations: gated ones in Mixtral's block, plain ones of the same kind.

Shapes: T tokens, D width, E experts, K experts a token, F hidden width, P tokens of one expert.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import MixtralConfig
from transformers.activations import ACT2FN
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS, use_experts_implementation
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock, MixtralTopKRouter

from benchmarks.rivals import Named, Rival, copy_into
from vmoe.moe import GluExperts, MlpExperts, MoE
from vmoe.moe.gates import TopKGate

IMPLEMENTATIONS = ("eager", *ALL_EXPERTS_FUNCTIONS.valid_keys())


def config_of(layer: MoE, hidden: int, implementation: str) -> MixtralConfig:
    """The layer's sizes in transformers' words."""
    assert isinstance(layer.gate, TopKGate)
    num_experts, dim = layer.gate.router.weight.shape
    config = MixtralConfig(
        hidden_size=dim,
        intermediate_size=hidden,
        num_local_experts=num_experts,
        num_experts_per_tok=layer.gate.spec.k,
        hidden_act="gelu",
    )
    config._experts_implementation = implementation
    return config


class Gated(Rival):
    """Mixtral's block, `MixtralExperts` in it."""

    def __init__(self, layer: MoE, implementation: str):
        super().__init__()
        assert isinstance(layer.experts, GluExperts)
        assert isinstance(layer.gate, TopKGate)
        gate, up, down = (stacked.weight for stacked in layer.experts.layers())
        self.block = MixtralSparseMoeBlock(config_of(layer, up.shape[1], implementation)).to(up.device)
        copy_into(self.block.gate.weight, layer.gate.router.weight)
        copy_into(self.block.experts.gate_up_proj, torch.cat([gate, up], dim=1))
        copy_into(self.block.experts.down_proj, down)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.block(x)
        return y

    def translate(self, own: Named) -> dict[str, Tensor]:
        gate, up = own["block.experts.gate_up_proj"].chunk(2, dim=1)
        return {
            "gate.router.weight": own["block.gate.weight"],
            "experts.gate.weight": gate,
            "experts.up.weight": up,
            "experts.down.weight": own["block.experts.down_proj"],
        }


@use_experts_implementation(has_gate=False, has_bias=True)
class PlainExperts(nn.Module):
    """Experts with one activation and biases, in the form that transformers' functions take."""

    def __init__(self, config: MixtralConfig):
        super().__init__()
        size = (config.num_local_experts, config.intermediate_size, config.hidden_size)
        self.num_experts = config.num_local_experts
        self.up_proj = nn.Parameter(torch.empty(size))
        self.up_proj_bias = nn.Parameter(torch.empty(size[:2]))
        self.down_proj = nn.Parameter(torch.empty(size).mT.contiguous())
        self.down_proj_bias = nn.Parameter(torch.empty(size[0], size[2]))
        self.act_fn = ACT2FN[config.hidden_act]

    def forward(self, x_TD: Tensor, experts_TK: Tensor, weights_TK: Tensor) -> Tensor:
        """What runs as ``eager``: a loop over the experts that some token chose, as Mixtral's own."""
        y_TD = torch.zeros_like(x_TD)
        with torch.no_grad():
            mask_EKT = nn.functional.one_hot(experts_TK, num_classes=self.num_experts).permute(2, 1, 0)
            chosen = mask_EKT.sum(dim=(-1, -2)).greater(0).nonzero()
        for (e,) in chosen:
            slots_P, tokens_P = torch.where(mask_EKT[e])
            hidden_PF = nn.functional.linear(x_TD[tokens_P], self.up_proj[e], self.up_proj_bias[e])
            rows_PD = nn.functional.linear(self.act_fn(hidden_PF), self.down_proj[e], self.down_proj_bias[e])
            weighted_PD = rows_PD * weights_TK[tokens_P, slots_P, None]
            y_TD.index_add_(0, tokens_P, weighted_PD.to(y_TD.dtype))
        return y_TD


class Plain(Rival):
    """Mixtral's router before `PlainExperts`."""

    def __init__(self, layer: MoE, implementation: str):
        super().__init__()
        experts = layer.experts
        assert isinstance(experts, MlpExperts)
        assert isinstance(layer.gate, TopKGate)
        config = config_of(layer, experts.fc1.weight.shape[1], implementation)
        self.router = MixtralTopKRouter(config).to(experts.fc1.weight.device)
        self.experts = PlainExperts(config).to(experts.fc1.weight.device)
        copy_into(self.router.weight, layer.gate.router.weight)
        assert experts.fc1.bias is not None
        assert experts.fc2.bias is not None
        copy_into(self.experts.up_proj, experts.fc1.weight)
        copy_into(self.experts.up_proj_bias, experts.fc1.bias)
        copy_into(self.experts.down_proj, experts.fc2.weight)
        copy_into(self.experts.down_proj_bias, experts.fc2.bias)

    def forward(self, x: Tensor) -> Tensor:
        x_TD = x.flatten(0, -2)
        _, weights_TK, experts_TK = self.router(x_TD)
        y_TD: Tensor = self.experts(x_TD, experts_TK, weights_TK)
        return y_TD.view(x.shape)

    def translate(self, own: Named) -> dict[str, Tensor]:
        return {
            "gate.router.weight": own["router.weight"],
            "experts.fc1.weight": own["experts.up_proj"],
            "experts.fc1.bias": own["experts.up_proj_bias"],
            "experts.fc2.weight": own["experts.down_proj"],
            "experts.fc2.bias": own["experts.down_proj_bias"],
        }
