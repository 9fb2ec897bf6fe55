"""Runs `triton_cases.py` in a process of its own, where Triton interprets its kernels if there is no GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="the kernels are Triton's")


SLOW = pytest.param("slow", marks=[pytest.mark.slow, pytest.mark.timeout(3600)])


@pytest.mark.parametrize("marker", ["not slow", SLOW])
def test_the_kernels(marker):
    environment = os.environ | ({} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"})
    cases = Path(__file__).with_name("triton_cases.py")
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", "-m", marker, str(cases)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
