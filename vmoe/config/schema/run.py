"""What every run's config holds, whatever its task: keys, types, ranges, and the one default of each.

Sections nest as they do in YAML (`data.batch_size`). Values are immutable and checked at construction; unknown
keys, wrong types and impossible values or combinations raise. `vmoe.config.read` makes one from files and
overrides; the `moe` section is `vmoe.moe.spec.MoESpec`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from vmoe.moe.spec import Dense, MoESpec

from .base import Count, NonNegative, Positive, Probability, Section
from .parallel import ParallelConfig, refusals


class ModelConfig(Section):
    """The host that MoE layers are put into.

    pretrained: start from the library's weights of that name. weights: start from those of a checkpoint of vmoe, either
    of the dense model, into which MoE layers are put then, or of the MoE model itself; null starts afresh.
    kwargs: further arguments of the model.
    """

    name: str
    pretrained: bool = False
    weights: Path | None = None
    grad_checkpointing: bool = False
    kwargs: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_start(self) -> Self:
        if self.weights is not None and self.pretrained:
            raise ValueError(f"weights is '{self.weights}' with pretrained: true; allowed: one of the two")
        return self


class DataConfig(Section):
    """Where the data are, and how many samples, images or sequences, a batch has.

    cache: where embedded data sets are written. batch_size: samples an optimizer step, over all processes and
    micro-batches. eval_batch_size: samples a batch of evaluation, on each process.
    """

    train: str
    val: str
    cache: Path = Path("runs/data")
    batch_size: Count
    eval_batch_size: Count


class OptimizerConfig(Section):
    """timm's optimizer of that name. lr: the peak rate itself, not scaled by the batch size.

    expert_weight_decay: of the experts' weights; null takes weight_decay. Biases, norms, gate scales and what a model
    exempts have none.
    layer_decay: each block's rate is so many times that of the block after it.
    clip_grad: the largest gradient norm; null turns clipping off.
    """

    kind: str = "adamw"
    lr: Positive = 1e-3
    weight_decay: NonNegative = 0.05
    expert_weight_decay: NonNegative | None = None
    betas: tuple[Probability, Probability] = (0.9, 0.999)
    eps: Positive = 1e-8
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    clip_grad: Positive | None = None


class ScheduleConfig(Section):
    """Cosine with linear warm-up, set for every optimizer step.

    steps, warmup_steps: optimizer steps, in place of epochs and warmup_epochs where they are given.
    warmup_prefix: the cosine begins where warm-up ends, at the peak (big_vision, nanoGPT); otherwise it begins with the
    run, and warm-up takes the place of its start (timm's default, DeiT).
    max_steps ends a trial early, somewhere on the curve.
    """

    epochs: Annotated[int, Field(ge=1, le=1_000_000)] = 300
    warmup_epochs: NonNegative = 5.0
    steps: Count | None = None
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    warmup_prefix: bool = False
    warmup_lr: NonNegative = 1e-6
    min_lr: NonNegative = 1e-5
    max_steps: Count | None = None

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if (self.steps is None) != (self.warmup_steps is None):
            raise ValueError(
                f"steps is {self.steps} with warmup_steps {self.warmup_steps}; allowed: both, in place of epochs and"
                " warmup_epochs, or neither"
            )
        if self.steps is not None and self.warmup_steps is not None and self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps is {self.warmup_steps}; allowed: less than steps, {self.steps}")
        if self.steps is None and self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs is {self.warmup_epochs}; allowed: less than epochs, {self.epochs}")
        return self

    def total_steps(self, steps_per_epoch: int) -> int:
        """Optimizer steps of the whole curve."""
        return self.epochs * steps_per_epoch if self.steps is None else self.steps

    def last_step(self, steps_per_epoch: int) -> int:
        """Optimizer steps until training ends: the whole curve, or a trial's part of it."""
        total = self.total_steps(steps_per_epoch)
        return total if self.max_steps is None else min(total, self.max_steps)


class TrainConfig(Section):
    """The step, and how often the run looks at itself.

    precision: bfloat16 and float16 run the forward under autocast, float16 with its loss scaled; weights and updates
    are float32 always. tf32 is float32 whose products a GPU may round to 10 bits. ``auto`` takes bfloat16 where the
    device has instructions for it, else float32.
    compile: run the model by torch.compile. accumulate: micro-batches an optimizer step.
    ema_decay: null keeps no moving average; with one, `evaluate` says which weights are evaluated. ema_warmup: let the
    decay rise to it from 0, as timm's moving average does, for runs that are short beside 1 / (1 - ema_decay) steps.
    log_every: optimizer steps. eval_every: epochs from one evaluation and checkpoint to the next; eval_every_steps:
    optimizer steps, in its place.
    routing_every: optimizer steps from one whose routing is counted for the log to the next; null counts none.
    probe_samples: of data.val, whose routing is compared from evaluation to evaluation, and shown in reports; 0 for
    none.
    tensorboard: log for TensorBoard too, in the run folder. wandb: the project of Weights & Biases to log to, or null.
    peak_tflops: what a device computes at most, in 10^12 FLOPs a second at the run's precision, for the utilisation
    in the log; null takes the makers' figure of common GPUs, and reports none for other devices.
    resume: ``auto`` goes on from the newest good checkpoint where there is one; ``never`` refuses an output folder that
    already holds a run, unless a launcher starts the same run again.
    max_nonfinite: so many steps in a row may have a loss or gradient that is not finite, and are left out.
    spike_factor: a loss so many times the median of the 100 before it sends the run back to its last checkpoint, and on
    with later data, at most max_returns times; null watches for none.
    timeout: seconds that processes wait for each other before they give up.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "tf32", "bfloat16", "float16"] = "auto"
    compile: bool = False
    accumulate: Count = 1
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    ema_warmup: bool = False
    evaluate: Literal["raw", "ema"] = "raw"
    log_every: Count = 50
    routing_every: Count | None = 1
    probe_samples: Annotated[int, Field(ge=0)] = 256
    tensorboard: bool = False
    wandb: str | None = None
    eval_every: Count = 1
    eval_every_steps: Count | None = None
    peak_tflops: Positive | None = None
    resume: Literal["never", "auto"] = "never"
    max_nonfinite: Annotated[int, Field(ge=0)] = 20
    spike_factor: Annotated[float, Field(gt=1)] | None = None
    max_returns: Count = 3
    timeout: Positive = 1800.0

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.evaluate == "ema" and self.ema_decay is None:
            raise ValueError("evaluate is 'ema'; allowed: raw, or ema together with ema_decay")
        return self


class CheckpointConfig(Section):
    """What a run keeps of itself on the way, besides its last two checkpoints.

    every_steps: optimizer steps from one save to the next, besides those at epochs' ends and evaluations; null: none.
    keep_best: of so many evaluations, the best. keep_every: optimizer steps from one checkpoint that stays to the next;
    null: none stays.
    """

    every_steps: Count | None = None
    keep_best: Count = 1
    keep_every: Count | None = None


class RunConfig(Section):
    """A whole run: a config in, a run folder out. task: what the model learns; it decides the other sections."""

    task: str
    output: Path
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    model: ModelConfig
    moe: MoESpec = Field(default_factory=lambda: MoESpec(gate=Dense()))
    data: DataConfig
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    train: TrainConfig = TrainConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    parallel: ParallelConfig = ParallelConfig()

    @model_validator(mode="after")
    def _whole_micro_batches(self) -> Self:
        if self.data.batch_size % self.train.accumulate:
            raise ValueError(
                f"data.batch_size is {self.data.batch_size}; allowed: a multiple of train.accumulate,"
                f" {self.train.accumulate}"
            )
        return self

    @model_validator(mode="after")
    def _possible_layout(self) -> Self:
        kind, train = self.optimizer.kind, self.train
        for refused in refusals(
            self.parallel, self.moe, optimizer=kind, compiled=train.compile, precision=train.precision
        ):
            raise ValueError(refused)
        return self
