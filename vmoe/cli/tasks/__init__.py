"""The one place where a task is chosen: from a config to what makes its data and its model."""

from __future__ import annotations

from typing import Any

from vmoe.config import RunConfig

from .base import Assembly, Data, Entry, Start
from .images import ImageAssembly
from .judging import Judge, Judging
from .text import TextAssembly

ASSEMBLIES: dict[str, type[Assembly[Any]]] = {"images": ImageAssembly, "text": TextAssembly}


def assembly_of(config: RunConfig) -> Assembly[Any]:
    """What makes data and model of a config of its task."""
    return ASSEMBLIES[config.task](config)


__all__ = ["ASSEMBLIES", "Assembly", "Data", "Entry", "Judge", "Judging", "Start", "assembly_of"]
