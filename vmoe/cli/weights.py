"""Checkpoints that a run or a conversion starts from: read, and held against the config's model."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from vmoe.backbones.timm import architecture
from vmoe.config import ConfigError, RunConfig, parse_moe
from vmoe.moe import Mlp, MoESpec
from vmoe.train.checkpoint import counting_weights, read_checkpoint

from .assemble import flatten, model_arguments

NOT_IN_WEIGHTS = ("upcycle_noise", "dispatch", "recompute", "capacity")  # keys of moe that any weights fit


@dataclass(frozen=True)
class Start:
    """A checkpoint to start from.

    path: what it is called in errors. name, kwargs, moe: of its model. data: the checkpoint's entry of that name.
    weights: those that its run evaluated.
    """

    path: str
    name: str
    kwargs: dict[str, Any]
    moe: MoESpec
    data: dict[str, Any]
    weights: dict[str, Tensor]

    @property
    def is_host(self) -> bool:
        """Whether it is the dense model with its own MLPs, which MoE layers can be put into."""
        return self.moe.keeps_host


def read_start(path: Path) -> Start:
    """Read a checkpoint. Raises `FileNotFoundError` and `ValueError` as `read_checkpoint` does."""
    stored = read_checkpoint(path)
    described = stored["model"]
    moe = parse_moe(described["moe"])
    return Start(str(path), described["name"], described["kwargs"], moe, stored["data"], counting_weights(stored))


def start_of(config: RunConfig) -> Start | None:
    """What `model.weights` names, if anything.

    Raises `FileNotFoundError`, or `ValueError`: no checkpoint of vmoe, or one of another model than the config's. The
    number of classes is compared when the data are known (`build_model`).
    """
    if config.model.weights is None:
        return None
    try:
        start = read_start(config.model.weights)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"model.weights is {error}") from None
    except ValueError as error:
        raise ConfigError(f"model.weights is {error}") from None
    require_same_host(start, config)
    if not start.is_host:
        require_same_moe(start, config.moe)
    return start


def require_same_host(start: Start, config: RunConfig) -> None:
    """Raise `ConfigError` unless name and arguments of the dense model are those of the config; classes aside."""
    arguments = model_arguments(config, start.kwargs["num_classes"])
    there, here = ({"name": name, **kwargs} for name, kwargs in [(start.name, start.kwargs), (None, arguments)])
    here["name"] = config.model.name
    if architecture(start.name) == architecture(config.model.name):
        here["name"] = there["name"]
    keys = [key for key in [*here, *(key for key in there if key not in here)] if key != "drop_path_rate"]
    if differing := [key for key in keys if here.get(key) != there.get(key)]:
        listed = "; ".join(f"{key} is {there.get(key)!r} there, {here.get(key)!r} here" for key in differing)
        raise ConfigError(
            f"{start.path} holds the weights of {start.name}, the config's model is {config.model.name}: {listed}."
            " Allowed: the same model.name, model.kwargs and image size; model.drop_path_rate may differ"
        )


def require_same_moe(start: Start, moe: MoESpec) -> None:
    """Raise `ConfigError` unless a MoE checkpoint's layers are those of the spec."""
    there, here = flatten(layers_of(start.moe)), flatten(layers_of(moe))
    differing = [key for key in sorted({*there, *here}) if there.get(key) != here.get(key)]
    for section in ("gate", "experts"):  # each kind has keys of its own, so that the kind says it all
        if f"{section}.kind" in differing:
            differing = [key for key in differing if not key.startswith(section) or key == f"{section}.kind"]
    if differing:
        listed = "; ".join(f"moe.{key} is {there.get(key)!r} there, {here.get(key)!r} here" for key in differing)
        raise ConfigError(
            f"{start.path} holds the weights of another MoE model: {listed}. Allowed: the same moe section"
            f" ({', '.join(NOT_IN_WEIGHTS)} may differ), or a dense checkpoint, which any moe is put into"
        )


def layers_of(moe: MoESpec) -> dict[str, Any]:
    """What of a spec decides about the layers that weights are loaded into, as plain values.

    `init` is among it where it decides the activation: upcycled GLU experts take a sigmoid.
    """
    chosen = {key: value for key, value in dataclasses.asdict(moe).items() if key not in NOT_IN_WEIGHTS}
    if isinstance(moe.experts, Mlp) or (moe.experts is not None and moe.experts.activation is not None):
        del chosen["init"]
    return chosen
