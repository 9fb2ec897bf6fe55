"""`vmoe train --dry-run --time` as a user runs it."""

from __future__ import annotations

from pathlib import Path

import pytest
from processes import in_processes
from world import make_world, vmoe


@pytest.fixture(scope="module")
def inside(tmp_path_factory):
    folder = tmp_path_factory.mktemp("estimate")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_world(folder)
        yield folder


LINES = ("timed", "speed", "data wait", "memory, peak", "an evaluation", "expected", "left out")


def test_a_timed_dry_run_says_how_long_the_run_takes_and_writes_nothing(inside):
    before = set(Path().rglob("*"))
    outcome = vmoe("train", "tiny.yaml", "--dry-run", "--time", "0.1")
    assert outcome.status == 0, outcome
    for name in LINES:
        assert f"\n{name}:" in outcome.out
    assert "for 3 steps" in outcome.out
    assert "of 3 × 8 × 8" in outcome.out
    assert set(Path().rglob("*")) == before
    assert max(map(len, outcome.out.splitlines())) <= 120


def test_of_a_run_that_goes_on_it_says_the_rest(inside):
    trial = ("tiny.yaml", "output=runs/trial", "schedule.epochs=4")
    assert vmoe("train", *trial, "schedule.max_steps=5").status == 0
    outcome = vmoe("train", *trial, "train.resume=auto", "--dry-run", "--time", "0.1")
    assert "from step 5 on" in outcome.out
    assert "for 7 steps" in outcome.out


def test_several_processes_take_the_same_steps(inside):
    out = in_processes(2, "train", "tiny.yaml", "--dry-run", "--time", "0.1")
    for name in LINES:
        assert out.count(f"\n{name}:") == 1  # of the first process alone
    assert "the process that waits most" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--time", "20"), "--time is 20 without --dry-run; allowed: vmoe train CONFIG --dry-run --time 20"),
        (("--dry-run", "--time", "0"), "--time is 0; allowed: seconds, more than 0"),
        (("--dry-run", "--time", "nan"), "--time is nan"),
        (("--dry-run", "--time", "inf"), "--time is inf"),
        (("--dry-run", "--time", "soon"), "invalid float value: 'soon'"),
    ],
)
def test_wrong_inputs(inside, arguments, says):
    outcome = vmoe("train", "tiny.yaml", *arguments)
    assert outcome.status == 2
    assert says in outcome.err
