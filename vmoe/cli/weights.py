"""Checkpoints that a run or a conversion starts from: read, and held against the config's model."""

from __future__ import annotations

import dataclasses
from typing import Any

from vmoe.config import ConfigError, RunConfig
from vmoe.moe import Mlp, MoESpec

from .flatten import flatten
from .stored import read_stored
from .tasks import Start, assembly_of

NOT_IN_WEIGHTS = ("upcycle_noise", "dispatch", "recompute", "capacity")  # keys of moe that any weights fit


def start_of(config: RunConfig) -> Start | None:
    """What `model.weights` names, if anything.

    Raises `FileNotFoundError`, or `ValueError`: no checkpoint of vmoe, or one of another model than the config's. The
    number of classes is compared when the data are known (`build_model`).
    """
    if config.model.weights is None:
        return None
    try:
        start = Start.of(read_stored(config.model.weights), str(config.model.weights))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"model.weights is {error}") from None
    except ValueError as error:
        raise ConfigError(f"model.weights is {error}") from None
    require_same_host(start, config)
    if not start.is_host:
        require_same_moe(start, config.moe)
    return start


def require_same_host(start: Start, config: RunConfig) -> None:
    """Raise `ConfigError` unless name and arguments of the dense model are those of the config."""
    require_same_architecture(start, config)
    assembly = assembly_of(config)
    there, here = start.kwargs, assembly.model_arguments(start.data)
    keys = [key for key in {**here, **there} if key not in assembly.IN_ANY_WEIGHTS]
    if differing := [key for key in keys if here.get(key) != there.get(key)]:
        listed = "; ".join(f"{key} is {there.get(key)!r} there, {here.get(key)!r} here" for key in differing)
        raise another_host(start, config, listed)


def require_same_architecture(start: Start, config: RunConfig) -> None:
    """Raise `ConfigError` unless the model's name, but for the tag of pretrained weights, is that of the config."""
    there, here = start.name, config.model.name
    architecture = assembly_of(config).backbone.architecture
    if architecture(there) != architecture(here):
        raise another_host(start, config, f"name is {there!r} there, {here!r} here")


def another_host(start: Start, config: RunConfig, differing: str) -> ConfigError:
    return ConfigError(
        f"{start.path} holds the weights of {start.name}, the config's model is {config.model.name}: {differing}."
        f" Allowed: {assembly_of(config).SAME_HOST}"
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
