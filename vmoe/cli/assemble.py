"""From a config to the data and the model it names: what training and evaluation share."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

import timm
from torch import nn

from vmoe import __version__
from vmoe.api import load_weights
from vmoe.backbones import timm as backbone
from vmoe.config import ConfigError, RunConfig
from vmoe.data import Loader, Normalize, open_loaders
from vmoe.train.checkpoint import FORMAT
from vmoe.train.distributed import Processes

if TYPE_CHECKING:
    from .weights import Start


class Data(NamedTuple):
    """Loaders, and what turns their uint8 images into the model's input."""

    train: Loader
    val: Loader
    prepare: nn.Module


def open_data(config: RunConfig, processes: Processes) -> Data:
    """The run's loaders. Raises `ConfigError` or `DataError` for data that cannot be trained on as asked."""
    loaders = open_loaders(
        config.data,
        seed=config.seed,
        batch_size=micro_batch_size(config, processes),
        accumulate=config.train.accumulate,
        processes=processes,
    )
    return Data(loaders.train, loaders.val, Normalize(config.data.mean, config.data.std))


def micro_batch_size(config: RunConfig, processes: Processes) -> int:
    """Images of one forward on one process. Raises `ConfigError` where the batch cannot be split so."""
    batch, parts = config.data.batch_size, processes.world * config.train.accumulate
    if batch % parts:
        raise ConfigError(
            f"data.batch_size is {batch}; allowed: a multiple of {parts}, {processes.world} processes ×"
            f" {config.train.accumulate} micro-batches (train.accumulate)"
        )
    if (config.augment.mixup or config.augment.cutmix) and batch // parts % 2:
        raise ConfigError(
            f"data.batch_size is {batch}, {batch // parts} images a micro-batch; allowed with augment.mixup or"
            " augment.cutmix: an even number, since images are mixed in pairs"
        )
    return batch // parts


def model_arguments(config: RunConfig, num_classes: int) -> dict[str, Any]:
    """The arguments of timm.create_model that follow from the config, `pretrained` aside."""
    chosen = {"num_classes": num_classes, "drop_path_rate": config.model.drop_path_rate}
    known = (
        timm.get_pretrained_cfg(config.model.name) if timm.is_model(backbone.architecture(config.model.name)) else None
    )
    if known is not None and known.fixed_input_size:  # positions are laid out for one size; others take any image
        chosen["img_size"] = config.data.image_size
    if clash := sorted(set(chosen) & set(config.model.kwargs)):
        where = {"num_classes": "the data", "drop_path_rate": "model.drop_path_rate", "img_size": "data.image_size"}
        raise ConfigError(f"model.kwargs holds {clash[0]}; it is set by {where[clash[0]]}")
    return {**chosen, **config.model.kwargs}


def build_model(config: RunConfig, num_classes: int, start: Start | None = None) -> nn.Module:
    """The config's model: the timm host, then its MoE layers, from torch's global generator.

    start: the checkpoint whose weights it begins with, which `start_of` has held against the config. Those of a dense
    model go into the host, so that MoE layers can be made of it; those of a MoE model go in at the end.
    """
    model = build_host(config, num_classes, start)
    if start is None or start.is_host:
        return backbone.add_moe(model, config.moe)
    return load_weights(backbone.add_moe(model, config.moe, weights_follow=True), start.weights, start.path)


def build_host(config: RunConfig, num_classes: int, start: Start | None = None) -> nn.Module:
    """The dense model that MoE layers are put into, with the weights that are for it."""
    if start is not None and start.kwargs["num_classes"] != num_classes:
        raise ConfigError(
            f"model.weights is {start.path}, a model of {start.kwargs['num_classes']} classes, and the data have"
            f" {num_classes}; allowed: weights of as many classes"
        )
    arguments = model_arguments(config, num_classes)
    host = backbone.create_host(config.model.name, pretrained=config.model.pretrained, **arguments)
    patches = getattr(getattr(host, "patch_embed", None), "patch_size", ())
    if any(config.data.image_size % size for size in patches):  # timm would leave out the rest of the image
        raise ConfigError(f"data.image_size is {config.data.image_size}; allowed: a multiple of the patch, {patches}")
    return load_weights(host, start.weights, start.path) if start is not None and start.is_host else host


def describe_model(config: RunConfig, classes: tuple[str, ...]) -> dict[str, Any]:
    """The entries of a checkpoint that say what the model is and what it was trained on."""
    data = config.data
    return {
        "format": FORMAT,
        "vmoe": __version__,
        "model": {
            "name": config.model.name,
            "kwargs": model_arguments(config, len(classes)),
            "moe": dataclasses.asdict(config.moe),
        },
        "data": {
            "classes": list(classes),
            "image_size": data.image_size,
            "eval_crop": data.eval_crop,
            "mean": list(data.mean),
            "std": list(data.std),
        },
        "config": config.model_dump(mode="json"),
        "evaluate": config.train.evaluate,
    }


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
