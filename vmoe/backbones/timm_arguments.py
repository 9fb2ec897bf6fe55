"""Arguments of vision transformers that published recipes use and timm does not have.

    pos_embed: sincos2d        fixed sine and cosine positions, beside timm's learn and none
    drop_path_uniform: true    drop_path_rate in every block; timm's grows from 0 in the first to it in the last

They stand among the other arguments of `timm.create_model` (model.kwargs), and travel in checkpoints with those.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from timm.layers import DropPath
from torch import Tensor, nn

SINCOS = "sincos2d"
TEMPERATURE = 10_000.0  # the ratio of the shortest wave's frequency to that of the longest


class OwnArguments(NamedTuple):
    """sincos: fixed positions. uniform: the rate of every block's drop-path, or None for timm's."""

    sincos: bool
    uniform: float | None

    @classmethod
    def take(cls, kwargs: dict[str, Any]) -> tuple[OwnArguments, dict[str, Any]]:
        """What is asked for, and the arguments that are left for timm.

        Raises `ValueError`: drop_path_uniform is no boolean, or fixed positions are to take the place of trained ones.
        """
        left = dict(kwargs)
        sincos = left.get("pos_embed") == SINCOS
        if sincos:
            del left["pos_embed"]
            if left.get("pretrained"):
                raise ValueError(
                    "model.kwargs.pos_embed is 'sincos2d' with pretrained weights, which have positions of their own;"
                    " allowed: pretrained: false"
                )
        uniform = left.pop("drop_path_uniform", False)
        if not isinstance(uniform, bool):
            raise ValueError(f"model.kwargs.drop_path_uniform is {uniform!r}; allowed: true or false")
        return cls(sincos, left.get("drop_path_rate", 0.0) if uniform else None), left

    def apply(self, model: nn.Module) -> None:
        """Change the model in place. Raises `ValueError` for one that has no such positions or no drop-path."""
        if self.sincos:
            fix_positions(model)
        if self.uniform is not None:
            set_drop_path(model, self.uniform)


def fix_positions(model: nn.Module) -> None:
    """Make the positions of the model's patches those of `sincos_positions`, and train them no more.

    Tokens before the patches that have positions, such as a class token, get 0 (He et al. 2022, arXiv 2111.06377).
    """
    host: Any = model
    positions = getattr(model, "pos_embed", None)
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    if not isinstance(positions, nn.Parameter) or positions.dim() != 3 or grid is None:
        raise ValueError(
            f"model.kwargs.pos_embed is 'sincos2d'; allowed for {type(model).__name__}: what timm allows, since it does"
            " not add one position to each patch"
        )
    rows, columns = grid
    table = sincos_positions(rows, columns, positions.shape[-1])
    with torch.no_grad():
        positions.zero_()
        positions[0, positions.shape[1] - len(table) :].copy_(table)
    host.pos_embed = positions.requires_grad_(False)


def sincos_positions(rows: int, columns: int, dim: int) -> Tensor:
    """(rows · columns, D): sin(x ω), cos(x ω), sin(y ω), cos(y ω) of a patch's column x and row y, D/4 numbers each.

    ω_i = 10000^(-i / (D/4 - 1)), from 1 to 1/10000 (Chen et al. 2021, arXiv 2104.02057, as computed for arXiv
    2205.01580; `timm.layers.build_sincos2d_pos_embed` has another order, and divides by D/4).
    Raises `ValueError` unless D is a multiple of 4 and at least 8.
    """
    if dim % 4 or dim < 8:
        raise ValueError(f"model.kwargs.pos_embed is 'sincos2d' with width {dim}; allowed: a multiple of 4 from 8")
    frequencies = TEMPERATURE ** -torch.linspace(0, 1, dim // 4, dtype=torch.float64)
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    x_PF, y_PF = (place.flatten()[:, None] * frequencies for place in (x, y))
    return torch.cat([x_PF.sin(), x_PF.cos(), y_PF.sin(), y_PF.cos()], dim=1)


def set_drop_path(model: nn.Module, rate: float) -> None:
    """One rate for the drop-path of every residual branch; timm leaves it out where its own rate is 0."""
    branches = [
        (module, name)
        for module in model.modules()
        for name, _ in module.named_children()
        if name.rstrip("12") == "drop_path"
    ]
    if not branches:
        raise ValueError(
            f"model.kwargs.drop_path_uniform is true, but {type(model).__name__} has no drop-path; allowed: false"
        )
    for module, name in branches:
        setattr(module, name, DropPath(rate) if rate else nn.Identity())
