"""What is inspected, whatever the model reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from vmoe.api import build_stored
from vmoe.config import ConfigError, RunConfig
from vmoe.moe import moe_layers


class Inspected(NamedTuple):
    """A checkpoint, read, and where its page goes."""

    path: Path
    stored: dict[str, Any]
    config: RunConfig
    page: Path

    def refuse(self, option: str, given: object, allowed: str) -> None:
        """Raise `ConfigError` where an option is given that is for models of another task."""
        if given:
            raise ConfigError(f"{option} is given, and {self.path} holds a model of {self.config.task}; {allowed}")

    def build(self) -> nn.Module:
        """The model. Raises `ConfigError` for one without MoE layers."""
        model = build_stored(self.stored, str(self.path))
        if not any(moe_layers(model)):
            raise ConfigError(f"{self.path} holds a dense model, which routes nothing; allowed: one with MoE layers")
        return model

    @property
    def facts(self) -> dict[str, str]:
        """What a reader of the page should know of the model."""
        moe = self.config.moe
        return {
            "checkpoint": str(self.path),
            "gate": moe.gate.kind,
            "experts": f"{moe.num_experts}, {moe.experts.kind}" if moe.experts else "",
            "model": self.config.model.name,
            "steps": f"{self.stored['training']['step']:,}",
        }
