"""vmoe: Mixture-of-Experts layers in timm vision transformers, trained and measured alike.

    import vmoe
    model = vmoe.create_model("deit_small_patch16_224", moe="self")
    with vmoe.record(model) as routings:
        logits = model(images)

Names are imported when they are first used, so that the tools which need no torch start without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import add_moe, create_model, load
    from .moe import MoESpec, Record, Routing, RoutingStats, balance_for, record

__version__ = "0.1.0"

_HOMES = {
    "add_moe": "api",
    "create_model": "api",
    "load": "api",
    "MoESpec": "moe",
    "Record": "moe",
    "Routing": "moe",
    "RoutingStats": "moe",
    "balance_for": "moe",
    "record": "moe",
}

__all__ = [
    "MoESpec",
    "Record",
    "Routing",
    "RoutingStats",
    "add_moe",
    "balance_for",
    "create_model",
    "load",
    "record",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
