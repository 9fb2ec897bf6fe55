"""The schema of a run: every key a config may hold, its type, its range and its one default.

Sections nest as they do in YAML (`data.batch_size`). Values are immutable and checked at construction; unknown
keys, wrong types and impossible values or combinations raise. `vmoe.config.read` makes one from files and
overrides; the `moe` section is `vmoe.moe.spec.MoESpec`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vmoe.moe.spec import Dense, MoESpec

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Triple = tuple[float, float, float]

DIGITS = "digits"  # in place of a path: the data set that comes with vmoe (vmoe.data.digits)


class Section(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class ModelConfig(Section):
    """The timm host. Its image size and number of classes come from `data`.

    pretrained: start from timm's weights of that name. weights: start from those of a checkpoint of vmoe, either of the
    dense model, into which MoE layers are put then, or of the MoE model itself; null starts afresh.
    kwargs: further arguments of `timm.create_model`, such as embed_dim or depth.
    """

    name: str
    pretrained: bool = False
    weights: Path | None = None
    drop_path_rate: Probability = 0.0
    grad_checkpointing: bool = False
    kwargs: dict[str, Any] = {}

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.weights is not None and self.pretrained:
            raise ValueError(f"weights is '{self.weights}' with pretrained: true; allowed: one of the two")
        return self


class DataConfig(Section):
    """Where images come from, and what a batch of them is.

    train, val: a .beton file for `loader: ffcv`, an image folder (one folder a class) for `loader: folder`, or
    ``digits``, the embedded set, which is written under `cache` for either loader.
    batch_size: images an optimizer step, over all processes and micro-batches.
    workers: loading threads (ffcv) or processes (folder) per process; null takes the cores this process may use.
    crop_scale, crop_ratio: of the random resized crop in training; eval_crop: the share of the shorter side that
    the centre crop keeps in evaluation.
    timeout: seconds without a batch after which the loader is given up.
    """

    train: str
    val: str
    loader: Literal["ffcv", "folder"] = "ffcv"
    cache: Path = Path("runs/data")
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


class OptimizerConfig(Section):
    """timm's optimizer of that name. lr: the peak rate itself, not scaled by the batch size.

    clip_grad: the largest gradient norm; null turns clipping off.
    """

    kind: str = "adamw"
    lr: Positive = 1e-3
    weight_decay: NonNegative = 0.05
    betas: tuple[Probability, Probability] = (0.9, 0.999)
    eps: Positive = 1e-8
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    clip_grad: Positive | None = None


class ScheduleConfig(Section):
    """Cosine with linear warm-up, set for every optimizer step. max_steps ends a trial early."""

    epochs: Count = 300
    warmup_epochs: NonNegative = 5.0
    warmup_lr: NonNegative = 1e-6
    min_lr: NonNegative = 1e-5
    max_steps: Count | None = None

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs is {self.warmup_epochs}; allowed: less than epochs, {self.epochs}")
        return self


class TrainConfig(Section):
    """The step, and how often the run looks at itself.

    precision: bfloat16 runs the forward under autocast; weights and updates are float32 either way. ``auto`` takes
    bfloat16 where the device has instructions for it, else float32.
    accumulate: micro-batches an optimizer step. ema_decay: null keeps no moving average; with one, `evaluate` says
    which weights are evaluated. log_every: optimizer steps; eval_every: epochs.
    resume: ``auto`` goes on from checkpoints/last.pt where there is one; ``never`` refuses an output folder that
    already holds a run.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    accumulate: Count = 1
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    evaluate: Literal["raw", "ema"] = "raw"
    log_every: Count = 50
    eval_every: Count = 1
    resume: Literal["never", "auto"] = "never"

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.evaluate == "ema" and self.ema_decay is None:
            raise ValueError("evaluate is 'ema'; allowed: raw, or ema together with ema_decay")
        return self


class RunConfig(Section):
    """A whole run: a config in, a run folder out."""

    output: Path
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    model: ModelConfig
    moe: MoESpec = Field(default_factory=lambda: MoESpec(gate=Dense()))
    data: DataConfig
    augment: AugmentConfig = AugmentConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.data.batch_size % self.train.accumulate:
            raise ValueError(
                f"data.batch_size is {self.data.batch_size}; allowed: a multiple of train.accumulate,"
                f" {self.train.accumulate}"
            )
        return self
