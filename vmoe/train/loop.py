"""The training loop: parts come in, weights and records go out."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from statistics import fmean

from torch import nn

from vmoe.moe import mean_figures

from .agreement import Verdict, agree, failure_of_all
from .evaluate import Evaluation, evaluate
from .interrupt import Interrupted
from .meter import Meter, describe_routing, describe_served, log_training
from .parallel import gather_weights
from .probe import Probe, changed_tokens
from .progress import Progress
from .snapshot import snapshot
from .spikes import LossSpike, go_back, is_spike
from .state import Parts, TrainState
from .step import Ahead, compute_gradients, conclude, read_ahead, seed_step


class StoppedBetweenSteps(Exception):  # noqa: N818  # its cause is the error
    """Training cannot go on, and the state is whole. cause: what the run ends with."""

    def __init__(self, cause: Exception):
        super().__init__(str(cause))
        self.cause = cause


def fit(state: TrainState, parts: Parts) -> Evaluation:
    """Train to the end of the schedule, with evaluations and checkpoints on the way; return the last evaluation.

    Raises on every process, after a checkpoint where one is due: `Interrupted` where one of them got a signal (of
    `parts.interrupts`); an error of a loader; `OtherProcessError` where another process met one or is gone;
    `FloatingPointError` where too many steps in a row had no finite loss and gradient, or too many losses were spikes.
    """
    network = parts.layout.network(state.model)
    meter = meter_of(state, parts)
    evaluation: Evaluation | None = None
    saved = state.step
    while True:
        if parts.evaluates_at(state.step) and state.evaluated < state.step:
            evaluation = evaluate_and_compare(state, parts, meter)
        if state.step >= parts.last_step:
            parts.folder.checkpoints.wait()
            return evaluation or evaluate_again(state, parts)
        try:
            train_until(parts.next_stop(state.step, state.position), state, parts, network, meter)
        except StoppedBetweenSteps as stopped:
            if state.step > saved:
                save(state, parts, meter)
            parts.folder.checkpoints.wait()
            raise stopped.cause from None
        except LossSpike as spike:
            go_back(state, parts, spike)
            meter = meter_of(state, parts)
            saved = state.step
            continue
        save(state, parts, meter)  # before the evaluation, which may not live to see its end
        saved = state.step


def meter_of(state: TrainState, parts: Parts) -> Meter:
    """A meter that goes on with the line of the log which the state's checkpoint had begun. Raises `ValueError`."""
    meter = Meter(parts, state.model)
    if state.line is not None:
        try:
            meter.load_state_dict(state.line)
        except Exception as error:  # whatever somebody put there
            raise ValueError(
                f"cannot go on with the run in {parts.folder.path}: training.line of its checkpoint is not one"
            ) from error
    return meter


def train_until(stop: int, state: TrainState, parts: Parts, network: nn.Module, meter: Meter) -> None:
    """Optimizer steps up to number `stop`, see `steps_until`."""
    config, processes, task = parts.config, parts.processes, parts.task
    epoch, done = divmod(state.position, parts.steps_per_epoch)
    epochs = -(-parts.last_step // parts.steps_per_epoch)
    units = config.data.batch_size * task.units_per_sample
    state.model.train()
    meter.start()
    progress = Progress(
        f"epoch {epoch + 1}/{epochs}",
        parts.steps_per_epoch * units,
        task.SHORT,
        show=processes.first,
        done=done * units,
    )
    try:
        with progress, closing(steps_until(stop, state, parts, network, meter)) as steps:
            for _ in steps:
                progress.advance(units)
                if state.step % config.train.log_every == 0:
                    log_training(state, parts, meter, progress)
    except (StoppedBetweenSteps, LossSpike):
        meter.settle(state)
        raise
    meter.settle(state)


def steps_until(
    stop: int, state: TrainState, parts: Parts, network: nn.Module, meter: Meter
) -> Generator[None, None, None]:
    """Take optimizer steps up to number `stop`, whose data are in the epoch that the next step's are in, or at its end;
    after each there is a pause.

    The data of a step are read while the device still computes the step before. Raises `StoppedBetweenSteps` and
    `LossSpike`, on every process.
    """
    config, processes = parts.config, parts.processes
    epoch, done = divmod(state.position, parts.steps_per_epoch)
    micro_batches = config.train.accumulate
    with closing(parts.train_loader.epoch(epoch, done * micro_batches)) as batches:
        ahead = read_ahead(batches, meter, micro_batches)
        verdict = agree(processes, interrupt=parts.interrupts.received, error=ahead.error)
        stop_if_needed(verdict, parts, ahead)
        while state.step < stop:
            seed_step(config.seed, state.position, processes.rank)
            found = compute_gradients(state, parts, network, ahead.batches, meter)
            ahead = read_ahead(batches, meter, micro_batches) if state.step + 1 < stop else Ahead()
            loss, norm = found.read()
            verdict = agree(
                processes, interrupt=parts.interrupts.received, error=ahead.error, loss=loss, gradient_norm=norm
            )
            if is_spike(verdict.loss, state.recent_losses, config.train.spike_factor):
                raise LossSpike(state.step, verdict.loss)
            state.remember(verdict.loss)
            conclude(state, parts, found, verdict, meter)
            yield
            stop_if_needed(verdict, parts, ahead)


def stop_if_needed(verdict: Verdict, parts: Parts, ahead: Ahead) -> None:
    """Raise `StoppedBetweenSteps` where a process got a signal, or failed to read."""
    if verdict.interrupt is not None:  # which may be why reading failed
        raise StoppedBetweenSteps(Interrupted(verdict.interrupt))
    if verdict.failed:
        raise StoppedBetweenSteps(failure_of_all(parts.processes, ahead.error))


def evaluate_and_compare(state: TrainState, parts: Parts, meter: Meter) -> Evaluation:
    """Evaluate, and save with what that came to, so that the best checkpoints are kept."""
    evaluation = evaluate_now(state, parts)
    state.best = max(state.best, evaluation.scores.rank)
    state.evaluated = state.step
    save(state, parts, meter, rank=evaluation.scores.rank)
    return evaluation


def evaluate_now(state: TrainState, parts: Parts) -> Evaluation:
    """Evaluate the weights that count, and log it."""
    evaluation = evaluate_weights(state, parts)
    if parts.probe is not None:
        state.changed = compare_with_before(evaluated_model(state, parts), state, parts, parts.probe)
    evaluation = replace(evaluation, changed=state.changed)
    log_evaluation(evaluation, state, parts)
    return evaluation


def evaluate_again(state: TrainState, parts: Parts) -> Evaluation:
    """The latest evaluation once more, of a run that goes on when nothing but its result is missing."""
    return replace(evaluate_weights(state, parts), changed=state.changed)


def evaluate_weights(state: TrainState, parts: Parts) -> Evaluation:
    """Evaluate the weights that count."""
    return evaluate(
        evaluated_model(state, parts),
        parts.val_loader,
        parts.task,
        parts.processes,
        parts.precision,
        interrupts=parts.interrupts,
        together=parts.layout.forwards_together,
    )


def log_evaluation(evaluation: Evaluation, state: TrainState, parts: Parts) -> None:
    """A line for people and one for metrics.jsonl."""
    routing = mean_figures(evaluation.routing) if evaluation.routing else None
    epoch = state.step / parts.steps_per_epoch
    entry = {
        "kind": "evaluation",
        "step": state.step,
        "epoch": epoch,
        **evaluation.scores.figures,
        "train_flops": state.train_flops,
        "routing": routing,
        "layers": describe_served(evaluation.stats.layers) if evaluation.stats is not None else {},
        "changed": evaluation.changed,
    }
    parts.folder.log(entry)
    if parts.processes.first:
        text = f"epoch {epoch:.4g}, step {state.step}: {evaluation.scores.text}"
        text += f", loss {evaluation.scores.figures['loss']:.4f}"
        if routing:
            text += f", {describe_routing(routing)}"
        if evaluation.changed:
            text += f", other experts than before {fmean(evaluation.changed.values()):.1%}"
        print(text, flush=True)


def evaluated_model(state: TrainState, parts: Parts) -> nn.Module:
    """The model with the weights that are evaluated: as they are, or their moving average."""
    use_ema = parts.config.train.evaluate == "ema" and state.ema is not None
    return state.ema.module if use_ema and state.ema is not None else state.model


def compare_with_before(model: nn.Module, state: TrainState, parts: Parts, probe: Probe) -> dict[str, float]:
    """Route the probe; the share of its tokens whose experts are others than in the evaluation before, by layer."""
    decisions = probe.route(model, parts.task, parts.processes.device, parts.precision)
    changed = changed_tokens(state.probed, decisions)
    state.probed = decisions
    return changed


def save(state: TrainState, parts: Parts, meter: Meter, *, rank: float | None = None) -> None:
    """Hand a snapshot to the run's store of checkpoints; training goes on while it is written. Weights that are not
    finite are nothing to go on from, and are not saved. Every process gives what it holds, and the first one saves.

    rank: of its evaluation, if that is done.
    """
    layout, first = parts.layout, parts.processes.first
    training = {
        **state.state_dict(layout, first=first),
        "line": snapshot(meter.state_dict()),
        "processes": parts.processes.world,
    }
    weights = gather_weights(state.model, layout, first=first)
    ema = None if state.ema is None else gather_weights(state.ema.module, layout, first=first)
    if not parts.folder.writes:
        return
    if not all(bool(tensor.isfinite().all()) for tensor in weights.values()):
        print(f"step {state.step}: weights are not finite, and are not saved", file=sys.stderr, flush=True)
        return
    checkpoint = {**parts.identity, "weights": weights, "ema": ema, "training": training}
    parts.folder.checkpoints.save(checkpoint, rank=rank)
