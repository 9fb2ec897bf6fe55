"""The benchmarks' own measures, on cases whose answers can be computed."""

from __future__ import annotations

import json
from itertools import count

import pytest
import torch

from benchmarks import harness
from benchmarks.agree import DisagreementError, check, relative_error
from benchmarks.harness import LEAST, WARM_UP, Clock, Contestant, Timing, race
from benchmarks.memory import Change, measure_memory, peak, without
from benchmarks.moe_layer import fit_line
from benchmarks.report import Report

CPU = torch.device("cpu")
MEGA = 2**20


def mega() -> torch.Tensor:
    """A tensor of 1 MiB."""
    return torch.ones(MEGA // 4)


def test_peak_is_the_most_that_is_alive_at_once():
    def step():
        a = mega()  # 1
        b = torch.cat([a, a])  # 3
        del a  # 2
        c = torch.cat([b, b])  # 6
        del b  # 4
        del c
        return [mega()]  # 1

    assert measure_memory(step, CPU).total == 6 * MEGA


@torch.library.custom_op("vmoe_tests::hungry", mutates_args=())
def hungry(x: torch.Tensor) -> torch.Tensor:
    """Takes four times its input in passing, beside a result of that size."""
    passing = torch.cat([x, x, x, x])
    return passing[: len(x)].clone()


def test_what_passes_inside_an_operator_counts():
    x = mega()
    assert measure_memory(lambda: [hungry(x)], CPU).total == 5 * MEGA


def test_gradients_of_parameters_are_left_out():
    weight = torch.ones(512, 512, requires_grad=True)  # 1 MiB
    rows = torch.ones(64, 512)  # 1/8 MiB

    def step():
        loss = (rows @ weight).sum()  # the product, 1/8, and its sum; then its gradient is an expanded 1
        return torch.autograd.grad(loss, [weight])

    measured = measure_memory(step, CPU)
    assert measured.total >= MEGA
    assert measured.kept < MEGA / 2


def test_only_an_allocation_that_survives_is_left_out():
    changes = [Change(1, 5), Change(1, -5), Change(2, 3), Change(1, 4), Change(2, -3)]
    assert peak(changes) == 7
    # The 5 bytes at address 1 were freed, the 4 that came there later were not; those at 2 were.
    assert list(without(changes, {1, 2})) == [Change(1, 5), Change(1, -5), Change(2, 3), Change(2, -3)]


def test_rounds_rotate_and_a_ratio_is_the_median_of_theirs(monkeypatch):
    order = []
    monkeypatch.setattr(harness, "SAMPLE", 0.0)
    timings = race([Contestant(name, lambda name=name: order.append(name)) for name in "abc"], CPU, 0)
    assert order == [*"abcabc", *"abcbcacab", *"abcbca"]
    assert all(len(timing.seconds) == LEAST for timing in timings.values())
    assert len(order) == 3 * (WARM_UP + LEAST)
    # ratios 1, 3 and 2; the ratio of the medians would be 2/2
    assert Timing((1.0, 6.0, 2.0)).over(Timing((1.0, 2.0, 1.0))).median == 2


def test_a_clock_shares_what_is_left(monkeypatch):
    seconds = count(100, 5)  # each look at the clock finds it 5 s later
    monkeypatch.setattr(harness.time, "perf_counter", lambda: next(seconds))
    clock = Clock(20, races=3)  # from 100 until 120
    assert [clock.share() for _ in range(3)] == [15 / 3, 10 / 2, 5 / 1]
    assert clock.share() == 0


def test_who_disagrees_is_named():
    expected = {"y": torch.tensor([3.0, 4.0]), "d x": torch.zeros(2)}
    assert relative_error(torch.tensor([3.0, 4.5]), expected["y"]) == pytest.approx(0.1)
    assert check("someone", expected, expected, 1e-5, work="w", reference="r").error == 0
    for wrong in ({"y": expected["y"] + 1}, {"d x": torch.tensor([torch.nan, 0])}):
        with pytest.raises(DisagreementError, match=f"someone .* {next(iter(wrong))};"):
            check("someone", expected | wrong, expected, 1e-5, work="w", reference="r")
    with pytest.raises(DisagreementError, match="someone gives"):
        check("someone", {"y": expected["y"]}, expected, 1e-5, work="w", reference="r")


def test_a_line_through_points():
    line = fit_line([(1.0, 1.0), (2.0, 3.0), (3.0, 2.0)])  # slope (1·1 + 1·0)/2 = 1/2, through the means (2, 2)
    assert (line.intercept, line.slope) == (1.0, 0.5)


def test_a_report_says_what_it_needs_to(tmp_path):
    report = Report("script", CPU, {"budget": 1}, "abc, dirty", tmp_path / "results")
    report.add("Table", ("who", "ms"), [{"who": "a", "ms": Timing((0.001, 0.002, 0.003)), "hidden": 1}], "Note.")
    report.skip("b", ValueError("cannot\nand more"))
    report.target("a over b", 1.1, 1.2)
    report.write()
    written = json.loads((tmp_path / "results" / "cpu_script.json").read_text())
    assert written["tables"][0]["rows"][0]["ms"]["median"] == 0.002
    assert written["targets"] == [{"what": "a over b", "at_most": 1.1, "measured": 1.2, "met": False}]
    assert {"commit", "cpu", "cores", "threads", "versions", "date"} <= written.keys()
    text = (tmp_path / "results" / "cpu_script.md").read_text()
    for piece in ("abc, dirty", "| a   | 2 (1.5–2.5) |", "- b: cannot", "| a over b | 1.1     | 1.2      | no  |"):
        assert piece in text
