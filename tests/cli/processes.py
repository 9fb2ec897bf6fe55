"""A command in several processes: by torchrun, as users start it, or forked from one that has imported everything."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import subprocess
import sys
from pathlib import Path

TIMEOUT = 200
# What takes seconds to import, once for all processes of a test run.
PRELOADED = ["vmoe.cli.train", "vmoe.cli.eval", "vmoe.backbones.gpt2_host", "vmoe.report.plots", "torch.distributed"]


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
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = Path.cwd() / "processes"
    log.mkdir(exist_ok=True)
    running = [
        context.Process(target=command, args=(rank, processes, port, arguments, str(Path.cwd()), str(log / str(rank))))
        for rank in range(processes)
    ]
    for process in running:
        process.start()
    for process in running:
        process.join(TIMEOUT)
    try:
        assert [process.exitcode for process in running] == [0] * processes, (log / "0").read_text()[-3000:]
    finally:
        for process in running:
            process.kill()
    return (log / "0").read_text()


def command(rank: int, world: int, port: int, arguments: tuple[str, ...], folder: str, log: str) -> None:
    """One process: the environment that torchrun sets, and the command."""
    import torch

    from vmoe.cli import main

    os.chdir(folder)
    multiprocessing.set_start_method("fork", force=True)  # for the loaders' workers, as in a process of its own
    torch.set_num_threads(1)
    os.environ |= {
        **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
    }
    with open(log, "w") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        status = main(list(arguments))
    sys.exit(status)
