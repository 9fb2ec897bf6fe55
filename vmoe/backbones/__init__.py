"""Adapters that put MoE layers into host models, one file a library; `host` is what they share.

Each adapter has the same functions: `create_host`, `create_model`, `add_moe`, `architecture`, `blocks`, `host_blocks`,
`norm_before`, `count_tokens`, `enable_checkpointing`, `save_folder`, `push_folder`. The two functions here say whose
model one is, and import no other adapter's library.
"""

from __future__ import annotations

from types import ModuleType

from torch import nn


def backbone_of_name(name: str) -> ModuleType:
    """The adapter that creates models of that name: GPT-2's sizes are transformers', every other name is timm's."""
    from . import gpt2

    if name in gpt2.SIZES:
        return gpt2
    from . import timm

    return timm


def backbone_of_model(model: nn.Module) -> ModuleType:
    """The adapter for a model: transformers' GPT2LMHeadModel, or whatever timm makes."""
    if "GPT2LMHeadModel" in (kind.__name__ for kind in type(model).__mro__):
        from . import gpt2

        return gpt2
    from . import timm

    return timm
