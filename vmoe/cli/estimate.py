"""How long a run will take, from the steps and evaluations that were timed before it, in lines for people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from vmoe.train.memory import GIB
from vmoe.train.state import Parts, TrainState
from vmoe.train.utilisation import model_flops_utilisation

from .pace import EvaluationPace, Steps, time_evaluation, time_steps
from .plan import lines_of, train_flops_between

OF_EVALUATION = 0.25  # of the seconds, on top
APART = 0.05  # by so much FLOPs differ before it is said
LEFT_OUT = (
    "start-up and compilation, writing {saves:,} checkpoints, the probe of each evaluation, what is written at the end;"
    " data that have to come from a slower disk than now; other work on this machine"
)


@dataclass(frozen=True)
class Remaining:
    """What of a run is still to be done. flops: of a step, the mean of those to come, at the density that the gate
    aims at. saves: checkpoints.
    """

    steps: int
    flops: float
    evaluations: int
    saves: int

    @classmethod
    def of(cls, state: TrainState, parts: Parts) -> Remaining:
        steps, stops = max(0, parts.last_step - state.step), list(stops_after(state.step, parts))
        overdue = parts.evaluates_at(state.step) and state.evaluated < state.step
        return cls(
            steps=steps,
            flops=train_flops_between(state.step, parts.last_step, parts) / max(steps, 1),
            evaluations=sum(map(parts.evaluates_at, stops)) + overdue,
            saves=len(stops),
        )


def stops_after(step: int, parts: Parts) -> Iterator[int]:
    """Where training pauses to evaluate or save, up to its end."""
    while step < parts.last_step:
        step = parts.next_stop(step)
        yield step


@dataclass(frozen=True)
class Expected:
    """Seconds of what remains: training by the mean step, as short and as long as by its quartiles, and evaluations.

    scale: FLOPs of a step to come over those of the steps that were timed.
    """

    training: float
    shortest: float
    longest: float
    evaluations: float
    scale: float

    @classmethod
    def of(cls, left: Remaining, steps: Steps, evaluation: EvaluationPace) -> Expected:
        scale = left.flops / steps.planned_flops if left.steps else 1.0
        count, rate = left.steps * scale, steps.rate
        evaluations = left.evaluations * evaluation.seconds
        return cls(count * steps.each, count / rate.high, count / rate.low, evaluations, scale)

    @property
    def seconds(self) -> float:
        return self.training + self.evaluations


def describe_estimate(state: TrainState, parts: Parts, seconds: float) -> str:
    """Train and evaluate for about so many seconds, and say what that means for the run, or for the rest of it.

    Every process takes part; the state is another one afterwards.
    """
    left = Remaining.of(state, parts)
    steps = time_steps(state, parts, seconds)
    evaluation = time_evaluation(state, parts, OF_EVALUATION * seconds)
    expected = Expected.of(left, steps, evaluation)
    return lines_of(
        {
            "timed": _timed(steps, parts),
            "speed": _speed(steps, parts),
            "data wait": _data_wait(steps, parts),
            "memory, peak": _memory(steps, parts),
            "an evaluation": _evaluation(evaluation, parts),
            "expected": _expected(expected, left, parts),
            "left out": LEFT_OUT.format(saves=left.saves) + _cheaper_or_dearer(steps, expected),
        }
    )


def _timed(steps: Steps, parts: Parts) -> str:
    shapes = " and ".join(" × ".join(map(str, shape)) for shape in steps.shapes)
    return (
        f"{steps.number:,} steps in {duration(steps.seconds)}, after {steps.warm_up:,} to warm up,"
        f" on {parts.task.SAMPLE}s of {shapes}"
    )


def _speed(steps: Steps, parts: Parts) -> str:
    units = parts.config.data.batch_size * parts.task.units_per_sample / steps.each
    a_second = steps.flops / steps.each
    share = model_flops_utilisation(a_second, parts.config, parts.processes)
    used = "" if share is None else f", {share:.1%} of the device's peak"
    low, high = 1 / steps.rate.high, 1 / steps.rate.low
    return (
        f"{units:,.0f} {parts.task.UNIT}s/s; a step {steps.each:.4g} s (quartiles {low:.4g} – {high:.4g}),"
        f" {in_flops(a_second)}{used}"
    )


def _data_wait(steps: Steps, parts: Parts) -> str:
    most = f" (the process that waits most: {steps.since.data_wait_max:.1%})" if parts.processes.world > 1 else ""
    return f"{steps.since.data_wait:.1%} of the time{most}"


def _memory(steps: Steps, parts: Parts) -> str:
    each = " on the process that takes most" if parts.processes.world > 1 else ""
    text = f"{steps.peak / GIB:,.2f} GiB"
    if steps.reserved is not None:
        return f"{text} allocated, {steps.reserved / GIB:,.2f} GiB reserved by torch{each}"
    over = max(0, steps.peak - steps.before) / GIB
    return f"{text} resident{each}, {over:,.2f} GiB over what it had before; workers that are processes aside"


def _evaluation(evaluation: EvaluationPace, parts: Parts) -> str:
    how = (
        "measured whole"
        if evaluation.batches == evaluation.of
        else f"from {evaluation.batches} of {evaluation.of} batches"
    )
    return f"{duration(evaluation.seconds)}, {evaluation.units_per_second:,.0f} {parts.task.UNIT}s/s, {how}"


def _expected(expected: Expected, left: Remaining, parts: Parts) -> str:
    if not left.steps and not left.evaluations:
        return "nothing: the run is done"
    rest = "" if left.steps == parts.last_step else f", from step {parts.last_step - left.steps:,} on"
    end = datetime.now().astimezone() + timedelta(seconds=expected.seconds)
    low, high = (duration(expected.evaluations + one) for one in (expected.shortest, expected.longest))
    return (
        f"{duration(expected.seconds)} (by the quartiles {low} – {high}){rest}:"
        f" {duration(expected.training)} for {left.steps:,} steps, {duration(expected.evaluations)} for"
        f" {left.evaluations:,} evaluation{'s' * (left.evaluations != 1)}; started now it ends {end:%Y-%m-%d %H:%M %Z}"
    )


def _cheaper_or_dearer(steps: Steps, expected: Expected) -> str:
    """What the estimate does about steps that cost other than those that were timed."""
    told = ""
    if abs(expected.scale - 1) > APART:
        told += f". Steps to come have {expected.scale:.2f} times the FLOPs of those that were timed: scaled by that"
    density = steps.flops / steps.planned_flops
    if abs(density - 1) > APART:
        told += (
            f". The timed steps took {density:.2f} times the FLOPs that they have at the density the gate aims at:"
            " how the speed changes until it is there is not in this"
        )
    return told


def duration(seconds: float) -> str:
    """For people: ``34 s``, ``12.3 min``, ``5.2 h``, ``76.0 h (3.2 days)``."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:.1f} min"
    hours = seconds / 3600
    return f"{hours:,.1f} h" if hours < 48 else f"{hours:,.1f} h ({hours / 24:,.1f} days)"


def in_flops(a_second: float) -> str:
    """FLOPs a second for people."""
    unit, name = next(
        ((unit, name) for unit, name in ((1e12, "TFLOPS"), (1e9, "GFLOPS")) if a_second >= unit), (1e6, "MFLOPS")
    )
    return f"{a_second / unit:,.3g} {name}"
