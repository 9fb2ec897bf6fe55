"""A command in several processes: by torchrun, as users start it, or forked from one that has imported everything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from together import TIMEOUT, together


def torchrun(processes: int, *arguments: str) -> str:
    """Run a command in several processes on this machine; returns its standard output."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [*launcher, "-m", "vmoe", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, check=False, timeout=TIMEOUT, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def in_processes(processes: int, *arguments: str) -> str:
    """The same without torchrun, in a fraction of its time; returns the first process's standard output."""
    return together(processes, Path.cwd() / "processes", command, arguments)[0].read_text()


def command(arguments: tuple[str, ...]) -> int:
    from vmoe.cli import main

    return main(list(arguments))
