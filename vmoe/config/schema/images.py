"""A run on images: a timm host, FFCV files or image folders, augmentation."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from .base import Count, NonNegative, Positive, Probability, Section, Triple
from .run import DataConfig, ModelConfig, RunConfig, TrainConfig

DIGITS = "digits"  # in place of a path: the data set that comes with vmoe (vmoe.data.digits)


Side = Annotated[int, Field(ge=1, le=4096)]  # pixels


class TimmConfig(ModelConfig):
    """The timm host. Its image size and number of classes come from `data`.

    kwargs: further arguments of `timm.create_model`, such as embed_dim or depth, and of `backbones.timm_arguments`:
    pos_embed: sincos2d, drop_path_uniform.
    """

    drop_path_rate: Probability = 0.0


class ProgressiveConfig(Section):
    """Training on smaller images first: sides of `start` pixels until the share `begin` of the epochs is done, then in
    a straight line up to data.image_size at the share `end`, in multiples of `multiple` pixels.
    """

    start: Count
    begin: Probability = 0.0
    end: Probability = 0.75
    multiple: Count = 32

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.begin > self.end:
            raise ValueError(f"begin is {self.begin} with end {self.end}; allowed: begin at most end")
        if self.start % self.multiple:
            raise ValueError(f"start is {self.start}; allowed: a multiple of progressive.multiple, {self.multiple}")
        return self


class ImageDataConfig(DataConfig):
    """Where images come from, and what a batch of them is.

    train, val: a .beton file for `loader: ffcv`, an image folder (one folder a class) for `loader: folder`, or
    ``digits``, the embedded set, which is written under `cache` for either loader.
    workers: loading threads (ffcv) or processes (folder) per process; null takes the cores this process may use.
    crop_scale, crop_ratio: of the random resized crop in training; eval_crop: the share of the shorter side that
    the centre crop keeps in evaluation. eval_interpolation: how `loader: folder` resizes in evaluation; ffcv resizes by
    area.
    repeats: of repeated augmentation: an epoch has a `repeats`-th of the images, so many times each, on different
    processes where there are several (Hoffer et al. 2020, arXiv 1901.09335; as in DeiT).
    progressive: sizes to train on before image_size; null trains on image_size alone. Evaluation is on image_size.
    timeout: seconds without a batch after which the loader is given up.
    """

    loader: Literal["ffcv", "folder"] = "ffcv"
    image_size: Side = 224
    batch_size: Count = 1024
    eval_batch_size: Count = 256
    workers: Annotated[int, Field(ge=1, le=512)] | None = None
    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: Probability = 0.5
    repeats: Count = 1
    progressive: ProgressiveConfig | None = None
    eval_crop: Annotated[float, Field(ge=0.1, le=1)] = 224 / 256
    eval_interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    mean: Triple = (0.485, 0.456, 0.406)
    std: Triple = (0.229, 0.224, 0.225)
    timeout: Annotated[float, Field(gt=0, le=1e6)] = 300.0

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
        if self.progressive is not None:
            start, multiple = self.progressive.start, self.progressive.multiple
            if start > self.image_size:
                raise ValueError(f"progressive.start is {start}; allowed: at most image_size, {self.image_size}")
            if self.image_size % multiple:
                raise ValueError(
                    f"progressive.multiple is {multiple}; allowed: a divisor of image_size, {self.image_size}"
                )
        return self


class AugmentConfig(Section):
    """What happens to a training batch on the device, after crop and flip: a policy's operations for each image, mixup
    or cutmix, then random erasing (timm's).

    policy: timm's name of it: RandAugment, such as rand-m9-mstd0.5-inc1, or 3-Augment, 3a or 3a-jitter0.3; null for
    none. interpolation: of the policy's rotations, shears and translations; random is one of the two for each.
    """

    policy: str | None = None
    interpolation: Literal["bilinear", "bicubic", "random"] = "bicubic"
    mixup: NonNegative = 0.0
    cutmix: NonNegative = 0.0
    mix_probability: Probability = 1.0
    mix_switch: Probability = 0.5
    erasing: Probability = 0.0


class ImageTrainConfig(TrainConfig):
    """As for every run, and the loss.

    loss: cross_entropy, or bce, the mean binary cross-entropy of every class, where both classes of a mixed image count
    as present (as in DeiT-III).
    label_smoothing: the share of the target that is spread over all classes.
    channels_last: lay images and convolutions out so.
    """

    loss: Literal["cross_entropy", "bce"] = "cross_entropy"
    channels_last: bool = False
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1


class ImageEntry(Section):
    """What a checkpoint says of its data. classes: their names. The rest: as in the run's `data`."""

    classes: Annotated[list[str], Field(min_length=1)]
    image_size: Side
    eval_crop: Annotated[float, Field(ge=0.1, le=1)]
    mean: Annotated[list[float], Field(min_length=3, max_length=3)]
    std: Annotated[list[Positive], Field(min_length=3, max_length=3)]

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if twice := [name for name, times in Counter(self.classes).items() if times > 1]:
            raise ValueError(f"classes holds {twice[0][:60]!r} more than once; allowed: each name once")
        return self


class ImageRunConfig(RunConfig):
    """Image classification."""

    task: Literal["images"] = "images"
    model: TimmConfig
    data: ImageDataConfig
    train: ImageTrainConfig = ImageTrainConfig()
    augment: AugmentConfig = AugmentConfig()

    @model_validator(mode="after")
    def _epochs_to_grow_over(self) -> Self:
        if self.data.progressive is not None and self.schedule.steps is not None:
            raise ValueError(
                "data.progressive is given with schedule.steps; allowed: schedule.epochs, over which images grow, or"
                " null"
            )
        return self

    @model_validator(mode="after")
    def _present_or_not(self) -> Self:
        if self.train.loss == "bce" and self.train.label_smoothing and (self.augment.mixup or self.augment.cutmix):
            raise ValueError(
                f"train.label_smoothing is {self.train.label_smoothing} with loss bce and mixed images, whose classes"
                " are present or not; allowed: 0, or neither augment.mixup nor augment.cutmix"
            )
        return self
