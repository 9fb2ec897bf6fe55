"""timm's pretrained models by name, as if each were a checkpoint: what it is, what its images are, its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
from timm.data import resolve_data_config

from vmoe.config import ConfigError, ImageRunConfig, TimmConfig
from vmoe.config.schema import ImageDataConfig

from .tasks.images import ImageAssembly

PREFIX = "timm:"
FOLDER = Path("runs/timm")  # of what comes of an evaluation


def read_pretrained(source: str) -> dict[str, Any]:
    """The checkpoint of ``timm:NAME``, weights included.

    Images are prepared as timm's own evaluation prepares them: test size and crop where the model has them.
    Raises `ConfigError`: timm knows no such model, or no weights or classes of it, or evaluates it on other parts of
    images than their centre; `ValueError` where the weights cannot be had.
    """
    name = source.removeprefix(PREFIX)
    data = ImageDataConfig(train="", val="")  # a model comes without
    bare = ImageRunConfig(output=FOLDER / name, model=TimmConfig(name=name, pretrained=True), data=data)
    _, entry = ImageAssembly(bare).pretrained(name)  # raises for a name without weights
    known = timm.get_pretrained_cfg(name)
    assert known is not None, name
    found = resolve_data_config({}, pretrained_cfg=known.to_dict(), use_test_size=True)
    _, height, width = found["input_size"]
    if found["crop_mode"] != "center" or height != width:
        raise ConfigError(
            f"{source} is evaluated on {height} × {width} pixels, crop mode {found['crop_mode']!r}; allowed: a model"
            " that sees the square centre of an image"
        )
    prepared = {
        "image_size": height,
        "eval_crop": found["crop_pct"],
        "eval_interpolation": found["interpolation"],
        "mean": tuple(found["mean"]),
        "std": tuple(found["std"]),
    }
    data = ImageDataConfig.model_validate({**data.model_dump(), **prepared})
    assembly = ImageAssembly(bare.model_copy(update={"data": data}))
    entry = assembly.entry(tuple(entry["classes"]))
    arguments = {key: value for key, value in assembly.model_arguments(entry).items() if key != "drop_path_rate"}
    host = assembly.backbone.create_host(name, pretrained=True, **arguments)
    described = assembly.describe_model(entry)
    return {
        **described,
        "model": {**described["model"], "kwargs": arguments},
        "weights": host.state_dict(),
        "ema": None,
        "evaluate": "raw",
        "training": {"step": None, "train_flops": None},  # not known
    }
