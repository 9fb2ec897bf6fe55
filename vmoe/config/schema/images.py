"""A run on images: a timm host, FFCV files or image folders, augmentation."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from .base import Count, NonNegative, Positive, Probability, Section, Triple
from .run import DataConfig, ModelConfig, RunConfig, TrainConfig

DIGITS = "digits"  # in place of a path: the data set that comes with vmoe (vmoe.data.digits)


class TimmConfig(ModelConfig):
    """The timm host. Its image size and number of classes come from `data`.

    kwargs: further arguments of `timm.create_model`, such as embed_dim or depth.
    """

    drop_path_rate: Probability = 0.0


class ImageDataConfig(DataConfig):
    """Where images come from, and what a batch of them is.

    train, val: a .beton file for `loader: ffcv`, an image folder (one folder a class) for `loader: folder`, or
    ``digits``, the embedded set, which is written under `cache` for either loader.
    workers: loading threads (ffcv) or processes (folder) per process; null takes the cores this process may use.
    crop_scale, crop_ratio: of the random resized crop in training; eval_crop: the share of the shorter side that
    the centre crop keeps in evaluation.
    timeout: seconds without a batch after which the loader is given up.
    """

    loader: Literal["ffcv", "folder"] = "ffcv"
    image_size: Count = 224
    batch_size: Count = 1024
    eval_batch_size: Count = 256
    workers: Annotated[int, Field(ge=1)] | None = None
    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: Probability = 0.5
    eval_crop: Annotated[float, Field(gt=0, le=1)] = 224 / 256
    mean: Triple = (0.485, 0.456, 0.406)
    std: Triple = (0.229, 0.224, 0.225)
    timeout: Positive = 300.0

    @model_validator(mode="after")
    def _possible(self) -> Self:
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise ValueError(f"crop_scale is {list(self.crop_scale)}; allowed: [low, high] with 0 < low <= high <= 1")
        low, high = self.crop_ratio
        if not 0 < low <= high:
            raise ValueError(f"crop_ratio is {list(self.crop_ratio)}; allowed: [low, high] with 0 < low <= high")
        if min(self.std) <= 0:
            raise ValueError(f"std is {list(self.std)}; allowed: more than 0 in each channel")
        return self


class AugmentConfig(Section):
    """What happens to a training batch on the device: mixup or cutmix, then random erasing (timm's)."""

    mixup: NonNegative = 0.0
    cutmix: NonNegative = 0.0
    mix_probability: Probability = 1.0
    mix_switch: Probability = 0.5
    erasing: Probability = 0.0


class ImageTrainConfig(TrainConfig):
    """As for every run, and the share of the target that label smoothing spreads over all classes."""

    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1


class ImageRunConfig(RunConfig):
    """Image classification."""

    task: Literal["images"] = "images"
    model: TimmConfig
    data: ImageDataConfig
    train: ImageTrainConfig = ImageTrainConfig()
    augment: AugmentConfig = AugmentConfig()
