"""What the benchmarks of single layers share: sizes, inputs, layers, and the steps that are timed.

Shapes: B images, N tokens an image, T = B·N tokens, D width, E experts.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.agree import Outcome
from vmoe.moe import HostMlp, MoE, MoESpec, Routing, RoutingFree, build_moe
from vmoe.moe.dispatch import PATHS, DispatchOptions, choose
from vmoe.moe.gates import ReluGate, RoutingFreeGate

STD = 0.02  # of weights and biases
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

# Ways to run a layer's experts: the chosen path, that without hidden rows kept for the backward pass or with room for a
# number of pairs that nobody asks the device for, and each path by its name.
WAYS: dict[str, dict[str, Any]] = {
    "auto": {},
    "recompute": {"recompute": True},
    "capacity": {"capacity": 0.4},
    **{path: {"path": path} for path in PATHS},
}
# Those to measure unless told otherwise; the kernels of the other device are left out.
DEFAULT_WAYS = {
    "cpu": [way for way in WAYS if way not in ("triton", "capacity")],
    "cuda": [way for way in WAYS if way != "tiled"],
}


class Size(NamedTuple):
    """dim: D. images: B. tokens: N, of an image or a text."""

    dim: int
    images: int
    tokens: int

    @property
    def total(self) -> int:
        return self.images * self.tokens

    def __str__(self) -> str:
        return f"D {self.dim}, T {self.images}×{self.tokens}"


class DenseMlp(nn.Module):
    """The MLP of a transformer block, as timm's `Mlp` without dropout."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(self.act(self.fc1(x)))
        return y


@dataclass(frozen=True)
class Work:
    """What every contestant of a table is given.

    x: (B, N, D), a leaf that requires a gradient. grads: of the output, fixed, by its type. autocast: the type of
    products, where it is not the weights' own.
    """

    x: Tensor
    grads: Mapping[torch.dtype, Tensor]
    autocast: torch.dtype | None

    @classmethod
    def on(cls, x: Tensor, autocast: torch.dtype | None = None) -> Work:
        """A random gradient of the output for that input, of numbers that each type holds."""
        grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(2)).bfloat16().to(x.device)
        return cls(x.detach().requires_grad_(), {dtype: grad.to(dtype) for dtype in DTYPES.values()}, autocast)

    def forward(self, module: nn.Module) -> Tensor:
        with torch.autocast(self.x.device.type, self.autocast, enabled=self.autocast is not None):
            y: Tensor = module(self.x)
        return y

    def inference(self, module: nn.Module) -> Callable[[], Tensor]:
        """A step without gradients."""

        def step() -> Tensor:
            with torch.no_grad():
                return self.forward(module)

        return step

    def training(self, module: nn.Module) -> Callable[[], tuple[Tensor | None, ...]]:
        """A step that returns the gradients of the module's parameters, after computing that of x too.

        Nothing accumulates, so nothing has to be set to zero between steps.
        """
        parameters = trained(module)

        def step() -> tuple[Tensor | None, ...]:
            y = self.forward(module)
            leaves = (self.x, *parameters.values())
            return torch.autograd.grad(y, leaves, self.grads[y.dtype], allow_unused=True)[1:]

        return step

    def outcome(self, module: nn.Module) -> dict[str, Tensor]:
        """The output and every gradient, by the module's own names; 0 where there is none."""
        parameters = trained(module)
        y = self.forward(module)
        leaves = {"x": self.x, **parameters}
        found = torch.autograd.grad(y, tuple(leaves.values()), self.grads[y.dtype], allow_unused=True)
        gradients = {
            name: torch.zeros_like(leaf) if gradient is None else gradient
            for (name, leaf), gradient in zip(leaves.items(), found, strict=True)
        }
        return {"y": y.detach(), **gradients}


def trained(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def as_gradients(outcome: Outcome) -> dict[str, Tensor]:
    """Names of gradients told from that of the output."""
    return {name if name == "y" else f"d {name}": value for name, value in outcome.items()}


def normed_tokens(size: Size, device: torch.device, seed: int = 1) -> Tensor:
    """(B, N, D): random rows of mean 0 and mean square 1, as a block's norm gives them, drawn on the CPU.

    Coordinate 0 is then 1 in all of them, as the shift of a norm may make it, so that a linear router can have an
    offset.
    """
    x = torch.randn(size.images, size.tokens, size.dim, generator=torch.Generator().manual_seed(seed))
    x = functional.layer_norm(x, (size.dim,))
    x[..., 0] = 1
    return x.to(device)


def build_layer(spec: MoESpec, size: Size, device: torch.device) -> MoE:
    """A vmoe layer in place of an MLP of four times the width, its biases not 0."""
    torch.manual_seed(0)
    host = HostMlp(
        dim=size.dim,
        hidden=4 * size.dim,
        activation=nn.GELU(),
        bias=True,
        std_in=STD,
        std_out=STD,
        tokens=size.tokens,
    )
    layer = build_moe(spec, host)
    for name, parameter in layer.experts.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=STD)
    return layer.to(device)


def with_path(layer: MoE, way: str) -> MoE:
    """The same layer, its parameters shared, that runs its experts in one of the `WAYS`."""
    twin = copy.copy(layer)
    twin.dispatch = replace(DispatchOptions(), **WAYS[way])
    return twin


def chosen_path(layer: MoE, work: Work) -> str:
    """The path that ``auto`` stands for."""
    with torch.autocast(work.x.device.type, work.autocast, enabled=work.autocast is not None):
        return choose(work.x.flatten(0, -2), layer.experts)


@torch.no_grad()
def set_density(layer: MoE, work: Work, density: float) -> None:
    """Make exactly that share of pairs active on this input, for gates whose share depends on it.

    Routing-Free gets the threshold, ReMoE the offset of its router, which lie in the middle between the last score
    that is in and the first that is out.
    """
    offset_E: Tensor | None = None
    if isinstance(layer.gate, ReluGate):
        offset_E = layer.gate.router.weight[:, 0]
        offset_E.zero_()
    scores = route(layer, work).scores.flatten().sort(descending=True).values
    count = round(density * len(scores))
    border = float(scores[count - 1 : count + 1].double().mean())
    if offset_E is not None:
        offset_E.fill_(-border)  # coordinate 0 of every token is 1
    elif isinstance(layer.gate, RoutingFreeGate):
        set_threshold(layer.gate, border)


def set_threshold(gate: RoutingFreeGate, threshold: float) -> None:
    assert isinstance(gate.spec, RoutingFree)
    gate.spec = replace(gate.spec, threshold=threshold * gate.spec.temperature)


@torch.no_grad()
def route(layer: MoE, work: Work) -> Routing:
    """What the layer's gate decides on a work's tokens."""
    x_TD = work.x.flatten(0, -2)
    with torch.autocast(work.x.device.type, work.autocast, enabled=work.autocast is not None):
        features_TER = layer.experts.features(x_TD) if layer.gate.scores_features else None
        return layer.gate(x_TD, features_TER, work.x.shape[:-1])


def density_of(layer: MoE, work: Work) -> float:
    """The share of active pairs on a work's tokens."""
    return float(route(layer, work).active.float().mean())


def draw_tokens(layer: MoE, size: Size, device: torch.device, density: float) -> Tensor:
    """(B, N, D) tokens that every implementation routes alike, numbers of the layer's type as float32.

    As `normed_tokens`, of three times as many drawn those first that are a margin off another decision. Others compute
    scores in another order or type, and in bfloat16 some tokens in a hundred would go to other experts; that would hide
    how well the rest agrees. A Routing-Free layer's threshold is set for the density, which is then met nearly.
    """
    exact = copy.deepcopy(layer).float()
    dtype = next(layer.parameters()).dtype
    drawn = normed_tokens(size._replace(images=3 * size.images), device).to(dtype).float()
    if isinstance(layer.gate, RoutingFreeGate):
        set_density(exact, Work.on(drawn), density)
        assert isinstance(exact.gate, RoutingFreeGate)
        set_threshold(layer.gate, exact.gate.threshold)
        scores_TE = route(exact, Work.on(drawn)).scores
        distance_T = (scores_TE / layer.gate.threshold - 1).abs().amin(1)
        margin = 0.0025
    else:
        best_TK = route(exact, Work.on(drawn)).scores.topk(3, dim=1).values
        distance_T = (best_TK[:, 1] - best_TK[:, 2]) / best_TK.abs().amax(1)
        margin = 0.01
    kept_TD = drawn.flatten(0, 1)[distance_T > margin][: size.total]
    if len(kept_TD) < size.total:
        raise RuntimeError(f"only {len(kept_TD)} of {len(distance_T)} tokens are {margin} off another decision")
    return kept_TD.view(drawn[: size.images].shape)
