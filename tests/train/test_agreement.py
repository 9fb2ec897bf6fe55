"""What processes agree on, and what signals do to a process."""

import math
import os
import signal
import subprocess
import sys
import time

import pytest
from memory import ALONE

from vmoe.train.agreement import agree, failure_of_all
from vmoe.train.interrupt import Interrupts


def test_one_process_agrees_with_itself():
    assert agree(ALONE, loss=2.0, gradient_norm=3.0) == (None, False, True, 2.0)
    assert agree(ALONE, interrupt=signal.SIGTERM).interrupt == "SIGTERM"
    assert agree(ALONE, error=ValueError()).failed
    error = ValueError("mine")
    assert failure_of_all(ALONE, error) is error


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("which", ["loss", "gradient_norm"])
def test_what_is_not_finite_is_seen(which, number):
    verdict = agree(ALONE, **{which: number})
    assert not verdict.finite
    assert math.isnan(verdict.loss)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_sets_a_flag_and_leaves_the_handlers_as_they_were(number, capfd):
    before = signal.getsignal(number)
    with Interrupts() as interrupts:
        assert interrupts.received == 0
        os.kill(os.getpid(), number)
        time.sleep(0.01)
        os.kill(os.getpid(), number)  # at once: a launcher passes it on
        time.sleep(0.01)
        assert interrupts.received == number
    assert signal.getsignal(number) is before
    assert capfd.readouterr().err.count(signal.Signals(number).name) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_process_at_once(number):
    script = f"""
import os, time
from vmoe.train import interrupt
interrupt.TOGETHER = 0.05
with interrupt.Interrupts():
    os.kill(os.getpid(), {number})
    time.sleep(0.1)
    os.kill(os.getpid(), {number})
    time.sleep(100)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == -number
