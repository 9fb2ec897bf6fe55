"""What is left of a run, and how long that takes by the steps and evaluations that were timed."""

from __future__ import annotations

import json

import pytest
import torch
from memory import tiny_config, tiny_run

from vmoe.cli.estimate import Expected, Remaining, duration, in_flops
from vmoe.cli.pace import time_evaluation, time_steps
from vmoe.cli.plan import train_flops_between
from vmoe.train.loop import fit


class Clock:
    """Of whole seconds, which go by where the test says so: in reading a batch, in a loss, in a forward."""

    def __init__(self, parts, monkeypatch, *, start=0, reading=0, loss=0):
        self.now = 0
        for place in ("vmoe.cli.pace.time", "vmoe.train.meter.time"):
            monkeypatch.setattr(place, self)
        slow = self.slowly(parts.task.training_loss, loss)
        monkeypatch.setattr(parts.task, "training_loss", slow)
        for loader in (parts.train_loader, parts.val_loader):
            monkeypatch.setattr(loader, "epoch", self.reading(loader.epoch, start, reading))

    def perf_counter(self):
        return float(self.now)

    def slowly(self, function, seconds):
        def slow(*arguments):
            self.now += seconds
            return function(*arguments)

        return slow

    def reading(self, epoch, start, seconds):
        def slow(number, first=0):
            self.now += start
            for batch in epoch(number, first):
                self.now += seconds
                yield batch

        return slow


@pytest.mark.parametrize(
    ("overrides", "stops", "evaluations"),
    [
        (("schedule.epochs=4", "train.eval_every=3"), 4, 2),  # saved at 6, 12, 18, 24; evaluated at 18, 24
        (("schedule.steps=14", "schedule.warmup_steps=2", "train.eval_every_steps=4"), 5, 4),  # 4, 6, 8, 12, 14; not 6
        (("schedule.max_steps=3",), 1, 1),
    ],
)
def test_what_is_left_is_what_a_run_then_does(overrides, stops, evaluations, tmp_path):
    state, parts = tiny_run(tiny_config(*overrides), tmp_path)
    left = Remaining.of(state, parts)
    assert (left.steps, left.saves, left.evaluations) == (parts.last_step, stops, evaluations)
    fit(state, parts)
    lines = [json.loads(line)["kind"] for line in parts.folder.metrics.read_text().splitlines()]
    assert lines.count("evaluation") == evaluations
    done = Remaining.of(state, parts)
    assert (done.steps, done.saves, done.evaluations) == (0, 0, 0)


def test_what_is_left_of_a_run_that_died_before_its_evaluation(tmp_path):
    state, parts = tiny_run(tiny_config("schedule.epochs=3"), tmp_path)
    state.step, state.evaluated = 12, 6
    left = Remaining.of(state, parts)
    assert (left.steps, left.saves, left.evaluations) == (6, 1, 2)  # at 12, which is overdue, and at 18
    assert left.flops == train_flops_between(0, 1, parts)


def test_steps_are_timed_beyond_epochs_and_after_warming_up(tmp_path, monkeypatch):
    """A batch takes 3 seconds to read and 1 to compute: 8 a step of two, 3/4 of it waiting."""
    state, parts = tiny_run(tiny_config("train.accumulate=2", "moe.gate.k=4"), tmp_path)
    Clock(parts, monkeypatch, reading=3, loss=1)
    steps = time_steps(state, parts, 100)
    assert steps.each == 8
    assert steps.rate.median == steps.rate.low == steps.rate.high == 1 / 8
    assert steps.since.data_wait == 3 / 4
    assert steps.warm_up == 3  # a quarter of 100 seconds is over after 3 · 8 + 6, for the batches of the step to come
    assert steps.number >= 100 / 8
    assert steps.number + steps.warm_up > parts.steps_per_epoch
    assert steps.peak >= steps.before > 0
    assert steps.flops == pytest.approx(steps.planned_flops, rel=1e-6)  # k = E: every pair is active
    assert not parts.folder.metrics.exists()
    assert not parts.folder.checkpoints.last.exists()


@pytest.mark.parametrize(("seconds", "batches"), [(11, 1), (13, 2), (15, 4), (1000, 7)])
def test_an_evaluation_takes_its_start_and_each_batch(seconds, batches, tmp_path, monkeypatch):
    """10 seconds to start, then 2 a batch, of which there are 7: 24 seconds; one batch alone cannot tell them apart."""
    state, parts = tiny_run(tiny_config(), tmp_path)
    Clock(parts, monkeypatch, start=10, reading=2)
    found = time_evaluation(state, parts, seconds)
    assert (found.batches, found.of) == (batches, 7)
    assert found.seconds == (7 * 12 if batches == 1 else 10 + 7 * 2)
    assert found.units_per_second == 48 / found.seconds


def test_steps_that_cost_more_take_longer(tmp_path, monkeypatch):
    state, parts = tiny_run(tiny_config("schedule.epochs=4"), tmp_path)
    Clock(parts, monkeypatch, reading=1, loss=1)
    steps, evaluation = time_steps(state, parts, 30), time_evaluation(state, parts, 1)
    left = Remaining(steps=50, flops=3 * steps.planned_flops, evaluations=2, saves=1)
    expected = Expected.of(left, steps, evaluation)
    assert expected.training == expected.shortest == expected.longest == pytest.approx(50 * 3 * 2)
    assert expected.seconds == expected.training + 2 * evaluation.seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0683, "0.0683 s"), (119, "119 s"), (600, "10.0 min"), (7200, "2.0 h"), (48 * 3600, "48.0 h (2.0 days)")],
)
def test_durations_for_people(seconds, text):
    assert duration(seconds) == text


def test_flops_for_people():
    assert [in_flops(a_second) for a_second in (3.2e6, 1.5e9, 2.5e14)] == ["3.2 MFLOPS", "1.5 GFLOPS", "250 TFLOPS"]


def test_flops_of_growing_images_are_those_of_each_epochs_size(tmp_path):
    """Of 4 epochs of 6 steps of 8 images, two are on 8² pixels and two on 16²: 5 and 17 tokens."""
    growing = "data.progressive={start: 8, begin: 0.5, end: 0.5, multiple: 8}"
    state, parts = tiny_run(tiny_config("schedule.epochs=4", "data.image_size=16", growing), tmp_path)
    density = {"blocks.1.mlp": 2 / 4}
    small, large = (parts.train_costs[torch.Size((3, side, side))].train_flops(density) for side in (8, 16))
    assert large > 3 * small
    assert train_flops_between(0, 24, parts) == pytest.approx(12 * 8 * (small + large))
    assert train_flops_between(10, 13, parts) == pytest.approx(8 * (2 * small + large))
    state.step = 6
    assert Remaining.of(state, parts).flops == pytest.approx(8 * (6 * small + 12 * large) / 18)
