"""The same layers as others compute them, each made of a vmoe layer's weights.

Every rival routes for itself, in its own natural form; it translates its parameters' names, and so its gradients', into
the vmoe layer's.

Shapes: T tokens, D width, E experts, K experts a token, F hidden width, R rank, P tokens of one expert.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from vmoe.moe import GluExperts, LowRankGluExperts, MlpExperts, MoE
from vmoe.moe.gates import RoutingFreeGate, TopKGate

Named = Mapping[str, Tensor]


class Rival(nn.Module, ABC):
    """(B, N, D) in, the same shape out."""

    @abstractmethod
    def translate(self, own: Named) -> dict[str, Tensor]:
        """Tensors by the names of the vmoe layer's parameters, from those by the rival's own names."""


class TopTwo(nn.Module):
    """A learned router as they commonly are: a softmax over all experts, the k largest, renormalised."""

    def __init__(self, gate: TopKGate):
        super().__init__()
        weight = gate.router.weight
        self.k = gate.spec.k
        self.linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device=weight.device)
        copy_into(self.linear.weight, weight)

    def forward(self, x_TD: Tensor) -> tuple[Tensor, Tensor]:
        """(T, K) weights, in the type of x, and (T, K) experts."""
        weights_TK, experts_TK = self.linear(x_TD).float().softmax(dim=-1).topk(self.k, dim=-1)
        weights_TK = weights_TK / weights_TK.sum(dim=-1, keepdim=True)
        return weights_TK.to(x_TD.dtype), experts_TK


class OneMlp(nn.Module):
    """One expert of a list."""

    def __init__(self, experts: MlpExperts, e: int):
        super().__init__()
        hidden, dim = experts.fc1.weight.shape[1:]
        self.fc1 = nn.Linear(dim, hidden, device=experts.fc1.weight.device)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim, device=experts.fc1.weight.device)
        for own, stacked in ((self.fc1, experts.fc1), (self.fc2, experts.fc2)):
            copy_into(own.weight, stacked.weight[e])
            assert stacked.bias is not None
            copy_into(own.bias, stacked.bias[e])

    def forward(self, x_PD: Tensor) -> Tensor:
        y_PD: Tensor = self.fc2(self.act(self.fc1(x_PD)))
        return y_PD


class ListLoop(Rival):
    """A loop over a list of experts, as public research code has it."""

    def __init__(self, layer: MoE):
        super().__init__()
        assert isinstance(layer.experts, MlpExperts)
        assert isinstance(layer.gate, TopKGate)
        self.router = TopTwo(layer.gate)
        self.experts = nn.ModuleList(OneMlp(layer.experts, e) for e in range(layer.experts.num_experts))

    def translate(self, own: Named) -> dict[str, Tensor]:
        stacked = {
            f"experts.{name}": torch.stack([own[f"experts.{e}.{name}"] for e in range(len(self.experts))])
            for name in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")
        }
        return {"gate.router.weight": own["router.linear.weight"], **stacked}


class NonzeroLoop(ListLoop):
    """Each expert's tokens by the positions of its mask, which the host waits for."""

    def forward(self, x: Tensor) -> Tensor:
        x_TD = x.flatten(0, -2)
        weights_TK, experts_TK = self.router(x_TD)
        y_TD = torch.zeros_like(x_TD)
        for e, expert in enumerate(self.experts):
            tokens_P, slots_P = (experts_TK == e).nonzero(as_tuple=True)
            y_TD.index_add_(0, tokens_P, expert(x_TD[tokens_P]) * weights_TK[tokens_P, slots_P, None])
        return y_TD.view(x.shape)


class MaskLoop(ListLoop):
    """Each expert's tokens by indexing with a boolean mask: once to read, once for the weights, once to add."""

    def forward(self, x: Tensor) -> Tensor:
        x_TD = x.flatten(0, -2)
        weights_TK, experts_TK = self.router(x_TD)
        weights_TE = weights_TK.new_zeros(len(x_TD), len(self.experts)).scatter(1, experts_TK, weights_TK)
        active_TE = torch.zeros_like(weights_TE, dtype=torch.bool).scatter_(1, experts_TK, True)
        y_TD = torch.zeros_like(x_TD)
        for e, expert in enumerate(self.experts):
            mask = active_TE[:, e]
            y_TD[mask] += weights_TE[mask, e, None] * expert(x_TD[mask])
        return y_TD.view(x.shape)


class OneRoutingFree(nn.Module):
    """One Routing-Free expert: it decides for itself which tokens it computes (arXiv 2604.00801)."""

    def __init__(self, experts: LowRankGluExperts, gate: RoutingFreeGate, e: int):
        super().__init__()
        rank, dim = experts.gate_down.weight.shape[1:]
        hidden = experts.up.weight.shape[1]
        device = experts.up.weight.device
        self.gate_down = nn.Linear(dim, rank, bias=False, device=device)
        self.gate_up = nn.Linear(rank, hidden, bias=False, device=device)
        self.up = nn.Linear(dim, hidden, bias=False, device=device)
        self.down = nn.Linear(hidden, dim, bias=False, device=device)
        for own, stacked in (
            (self.gate_down, experts.gate_down),
            (self.gate_up, experts.gate_up),
            (self.up, experts.up),
            (self.down, experts.down),
        ):
            copy_into(own.weight, stacked.weight[e])
        self.scale = nn.Parameter(gate.scale[e].detach().clone())
        self.bias = nn.Parameter(gate.bias[e].detach().clone())
        self.act = nn.GELU()
        self.threshold = gate.threshold

    def forward(self, x_TD: Tensor, y_TD: Tensor) -> None:
        """Add to y. The host waits twice: whether any token is active, and which."""
        z_TR = self.gate_down(x_TD)
        score_T = self.scale.float() * torch.linalg.vector_norm(z_TR.float(), dim=-1) - self.bias.float()
        mask_T = score_T >= self.threshold
        if mask_T.any():
            tokens_P = mask_T.nonzero().squeeze(1)
            hidden_PF = self.act(self.gate_up(z_TR[tokens_P])) * self.up(x_TD[tokens_P])
            y_TD.index_add_(0, tokens_P, self.down(hidden_PF) * score_T[tokens_P, None].to(y_TD.dtype))


class RoutingFreeLoop(Rival):
    """Routing-Free as a loop over experts."""

    def __init__(self, layer: MoE):
        super().__init__()
        stacked, gate = layer.experts, layer.gate
        assert isinstance(stacked, LowRankGluExperts)
        assert isinstance(gate, RoutingFreeGate)
        self.experts = nn.ModuleList(OneRoutingFree(stacked, gate, e) for e in range(stacked.num_experts))

    def forward(self, x: Tensor) -> Tensor:
        x_TD = x.flatten(0, -2)
        y_TD = torch.zeros_like(x_TD)
        for expert in self.experts:
            expert(x_TD, y_TD)
        return y_TD.view(x.shape)

    def translate(self, own: Named) -> dict[str, Tensor]:
        names = {f"experts.{name}.weight": f"{name}.weight" for name in ("gate_down", "gate_up", "up", "down")}
        names |= {"gate.scale": "scale", "gate.bias": "bias"}
        return {
            ours: torch.stack([own[f"experts.{e}.{theirs}"] for e in range(len(self.experts))])
            for ours, theirs in names.items()
        }


class Scatter(Rival):
    """shawntan/scattermoe's `GLUMLP` or `MLP`. Raises `ImportError` where it is not installed."""

    def __init__(self, layer: MoE):
        from scattermoe.mlp import GLUMLP, MLP

        super().__init__()
        assert isinstance(layer.gate, TopKGate)
        first, up, last = layer.experts.products
        self.gated = up is not None
        self.router = TopTwo(layer.gate)
        self.inner = (GLUMLP if self.gated else MLP)(
            input_size=first.weight.shape[2],
            hidden_size=first.weight.shape[1],
            num_experts=layer.experts.num_experts,
            top_k=layer.gate.spec.k,
            bias=first.bias is not None,
            activation=nn.GELU(),
        ).to(first.weight.device)
        # Its first half of a gated product is the one without the activation.
        copy_into(self.inner.experts.weight, first.weight if up is None else torch.cat([up.weight, first.weight], 1))
        copy_into(self.inner.output_experts.weight, last.weight)
        if first.bias is not None and last.bias is not None:
            copy_into(self.inner.experts.bias, first.bias)
            copy_into(self.inner.output_experts.bias, last.bias)

    def forward(self, x: Tensor) -> Tensor:
        weights_TK, experts_TK = self.router(x.flatten(0, -2))
        y: Tensor = self.inner(x, weights_TK, experts_TK)
        return y

    def translate(self, own: Named) -> dict[str, Tensor]:
        found = {"gate.router.weight": own["router.linear.weight"]}
        reads, writes = own["inner.experts.weight"], own["inner.output_experts.weight"]
        if self.gated:
            up, gate = reads.chunk(2, dim=1)
            return {**found, "experts.gate.weight": gate, "experts.up.weight": up, "experts.down.weight": writes}
        biases = {"experts.fc1.bias": own["inner.experts.bias"], "experts.fc2.bias": own["inner.output_experts.bias"]}
        return {**found, "experts.fc1.weight": reads, "experts.fc2.weight": writes, **biases}


class MegaBlocks(Rival):
    """databricks/megablocks's dropless layer of GLU experts. Raises `ImportError` where it is not installed."""

    def __init__(self, layer: MoE):
        from megablocks.layers.arguments import Arguments
        from megablocks.layers.dmoe import dMoE

        super().__init__()
        experts = layer.experts
        assert isinstance(experts, GluExperts)
        assert isinstance(layer.gate, TopKGate)
        num_experts, hidden, dim = experts.up.weight.shape
        self.inner = dMoE(
            Arguments(
                hidden_size=dim,
                ffn_hidden_size=hidden,
                bias=False,
                return_bias=False,
                activation_fn=functional.gelu,
                moe_num_experts=num_experts,
                moe_top_k=layer.gate.spec.k,
                moe_normalize_expert_weights=1,
                moe_loss_weight=0.0,
                mlp_type="glu",
                mlp_impl="grouped",
                fp16=False,
                bf16=True,
                device=experts.up.weight.device,
            )
        )
        self.shape = (num_experts, hidden, dim)
        copy_into(self.inner.router.layer.weight, layer.gate.router.weight)
        copy_into(self.inner.experts.mlp.w1, experts.gate.weight.flatten(0, 1))
        copy_into(self.inner.experts.mlp.v1, experts.up.weight.flatten(0, 1))
        copy_into(self.inner.experts.mlp.w2, experts.down.weight.mT.flatten(0, 1))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner(x)
        return y

    def translate(self, own: Named) -> dict[str, Tensor]:
        return {
            "gate.router.weight": own["inner.router.layer.weight"],
            "experts.gate.weight": own["inner.experts.mlp.w1"].view(self.shape),
            "experts.up.weight": own["inner.experts.mlp.v1"].view(self.shape),
            "experts.down.weight": own["inner.experts.mlp.w2"].view(self.shape).mT,
        }


@torch.no_grad()
def copy_into(own: Tensor, weight: Tensor) -> None:
    own.copy_(weight)
