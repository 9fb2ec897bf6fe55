"""A save that is killed, at every boundary of a system call, costs no checkpoint that was good before."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_a_save_killed_anywhere_leaves_the_checkpoints_of_before(tmp_path):
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), str(HERE)]),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, str(HERE / "killed.py"), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    boundaries = [int(line.split()[-1]) for line in done.stdout.splitlines()]
    assert len(boundaries) == 4
    assert min(boundaries[1:]) > 15  # writes, flushes, links and renames were met
