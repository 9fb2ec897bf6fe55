"""Rates of work and of arrivals, by a clock that only the work moves."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from vmoe.data.stages import Rate, rate, time_work
from vmoe.data.stages.rate import GROUPS, LEAST, MOST, time_arrivals


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def pass_(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(rate, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


def test_quartiles_by_hand() -> None:
    assert Rate.of([1.0, 5.0, 2.0, 4.0, 3.0]) == Rate(3.0, 2.0, 4.0, 5)
    assert Rate.of([7.0]) == Rate(7.0, 7.0, 7.0, 1)
    assert Rate.of([4.0, 4.0]).seconds == 0.25


def test_work_is_timed_without_its_first_time(clock: Clock) -> None:
    durations = iter([100.0] + [0.5] * 1000)
    found = time_work(lambda: clock.pass_(next(durations)), 10, seconds=0.0)
    assert found == Rate(20.0, 20.0, 20.0, LEAST)  # 10 units in half a second


@pytest.mark.parametrize(("seconds", "repeats"), [(0.0, LEAST), (20.5, 19), (1e9, MOST)])
def test_repeats_fill_the_time(clock: Clock, seconds: float, repeats: int) -> None:
    """A second each, after two that do not count: the repeat that ends after 20.5 seconds is the 19th."""
    assert time_work(lambda: clock.pass_(1.0), 1, seconds).repeats == repeats


def test_short_work_is_done_several_times_in_a_repeat(clock: Clock) -> None:
    calls = []

    def work() -> None:
        calls.append(clock.now)
        clock.pass_(0.001)

    assert time_work(work, 1, seconds=0.0).median == pytest.approx(1000)
    assert len(calls) == 2 + LEAST * 20  # 0.02 s of 0.001 s


def test_waiting_for_the_device_counts(clock: Clock) -> None:
    found = time_work(lambda: clock.pass_(1.0), 1, seconds=0.0, finish=lambda: clock.pass_(3.0))
    assert found.median == pytest.approx(0.25)


def batches(clock: Clock, seconds: list[float], units: int = 4):
    for duration in seconds:
        clock.pass_(duration)
        yield torch.zeros(units), torch.zeros(units)


def test_the_start_of_a_loader_does_not_count(clock: Clock) -> None:
    came = batches(clock, [50.0, 50.0, 50.0] + [0.1] * 100)
    found = time_arrivals(came, len, skip=3, seconds=2.0, most=1000)
    assert found.median == pytest.approx(40)  # 4 units in 0.1 s
    assert found.repeats == GROUPS
    assert clock.now == pytest.approx(152.1)  # the first batch after the two seconds is the last one
    assert next(came, None) is None  # closed


def test_no_more_batches_than_asked_for(clock: Clock) -> None:
    assert time_arrivals(batches(clock, [1.0] * 100), len, skip=1, seconds=1e9, most=3).repeats == 3
    assert clock.now == 4  # one starts the clock


def test_batches_in_bursts_have_the_rate_of_all(clock: Clock) -> None:
    """Two workers that hand over at once, every second: 8 units a second."""
    found = time_arrivals(batches(clock, [1.0, 0.0] * 81), len, skip=2, seconds=1e9, most=160)
    assert found.median == pytest.approx(8)


def test_slow_batches_are_waited_for(clock: Clock) -> None:
    assert time_arrivals(batches(clock, [9.0] * 20), len, skip=1, seconds=0.1, most=100).repeats == LEAST


def test_too_few_batches(clock: Clock) -> None:
    with pytest.raises(ValueError, match="the data make 1 batches"):
        time_arrivals(batches(clock, [1.0] * 3), len, skip=3, seconds=1.0, most=10)
