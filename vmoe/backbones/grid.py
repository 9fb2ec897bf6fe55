"""Where the tokens of a timm model lie in the image.

Most models keep patches in reading order, row by row, after their prefix tokens (class token, registers), or as a map
of rows and columns. Others fold or reorder them, and of those nothing is said here.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from torch import nn

# Model classes of timm whose MLPs see patches in reading order: perturbing a patch moves the token of its place most.
# Hiera's order is that of its pooling windows, NesT's that of its blocks, and MobileViT folds patches into the batch.
IN_READING_ORDER = frozenset(
    (
        *("Beit", "Cait", "CoaT", "ConVit", "ConvNeXt", "CrossVit", "CSATv2", "DaVit", "EdgeNeXt", "Eva"),
        *("GlobalContextVit", "HieraDet", "MultiScaleVit", "PoolingVisionTransformer", "Qwen3VitClassifier"),
        *("Qwen3VitEncoder", "SwinTransformer", "SwinTransformerV2", "SwinTransformerV2Cr", "TNT", "Twins"),
        *("VisionTransformer", "VisionTransformerRelPos", "VisionTransformerSAM", "VOLO", "Xcit"),
    )
)
PREFIXES = (0, 1, 2)  # tokens before the patches, where the model does not say: none, class, distillation


class TokenGrid(NamedTuple):
    """prefix: tokens before the first patch. rows, columns: of the patches, which follow row by row."""

    prefix: int
    rows: int
    columns: int


def token_grid(model: nn.Module, shape: tuple[int, ...], image_size: int) -> TokenGrid | None:
    """Where in the image the tokens of a layer lie; None where that is not known, or where they are of no place.

    shape: of the layer's tokens without the batch, as `Routing.shape[1:]`: (N,), or (rows, columns). image_size: pixels
    of a side of the images, which are square.
    """
    if not IN_READING_ORDER & {base.__name__ for base in type(model).__mro__}:
        return None
    if len(shape) == 2:
        return TokenGrid(0, *shape)
    if len(shape) != 1 or shape[0] == 1:  # one token: the class token of a class-attention block
        return None
    (tokens,) = shape
    own: int = getattr(model, "num_prefix_tokens", 0)
    patches = patch_grid(model, image_size)
    for prefix in (0, own) if patches else ():
        if patches and tokens == prefix + math.prod(patches):
            return TokenGrid(prefix, *patches)
    for prefix in (*PREFIXES, own):  # stages of fewer patches than the first: a square of them
        side = math.isqrt(max(tokens - prefix, 0))
        if side and tokens == prefix + side**2:
            return TokenGrid(prefix, side, side)
    return None


def patch_grid(model: nn.Module, image_size: int) -> tuple[int, int] | None:
    """Rows and columns of patches that the model's first layer makes, where it is one that says so."""
    embed: Any = getattr(model, "patch_embed", None)
    if hasattr(embed, "dynamic_feat_size"):
        rows, columns = embed.dynamic_feat_size((image_size, image_size))
    elif hasattr(embed, "grid_size"):
        rows, columns = embed.grid_size
    else:
        return None
    return rows, columns
