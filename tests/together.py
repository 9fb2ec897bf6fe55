"""Several processes of one test, forked from one that has imported everything."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

TIMEOUT = 200
# What takes seconds to import, once for all processes of a test run.
PRELOADED = ["vmoe.cli.train", "vmoe.cli.eval", "vmoe.backbones.gpt2_host", "vmoe.report.plots", "torch.distributed"]


class Running(NamedTuple):
    """Processes that were started, and the file that each prints into; in the order of the ranks."""

    processes: list[BaseProcess]
    logs: list[Path]

    def told(self) -> list[str]:
        """What each has printed."""
        return [log.read_text(errors="replace") if log.exists() else "" for log in self.logs]


def begin(processes: int, folder: Path, function: Callable[..., Any], *arguments: Any) -> Running:
    """Call a function in several processes that know each other as those of torchrun do, in this working directory.

    folder: for what they print.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder.mkdir(exist_ok=True)
    logs = [folder / str(rank) for rank in range(processes)]
    running: list[BaseProcess] = [
        context.Process(target=_run, args=(rank, processes, port, str(Path.cwd()), str(log), function, arguments))
        for rank, log in enumerate(logs)
    ]
    for process in running:
        process.start()
    return Running(running, logs)


def together(processes: int, folder: Path, function: Callable[..., Any], *arguments: Any) -> list[Path]:
    """`begin`, and wait until all have ended well; returns the files that they printed into."""
    running = begin(processes, folder, function, *arguments)
    for process in running.processes:
        process.join(TIMEOUT)
    try:
        told = "\n".join(text[-3000:] for text in running.told())
        assert [process.exitcode for process in running.processes] == [0] * processes, told
    finally:
        for process in running.processes:
            process.kill()
    return running.logs


def _run(
    rank: int, world: int, port: int, folder: str, log: str, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    """One process: the environment that torchrun sets, and the function, whose result, if any, is the exit status."""
    import torch

    os.chdir(folder)
    multiprocessing.set_start_method("fork", force=True)  # for the loaders' workers, as in a process of its own
    torch.set_num_threads(1)
    os.environ |= {
        **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
    }
    with open(log, "w", buffering=1) as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        os.dup2(file.fileno(), 2)  # what is written past Python's sys.stderr, too
        try:
            status = function(*arguments)
        except BaseException:
            traceback.print_exc()
            raise
    sys.exit(status)
