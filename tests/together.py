"""Several processes of one test, forked from one that has imported everything."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

TIMEOUT = 200
# What takes seconds to import, once for all processes of a test run.
PRELOADED = ["vmoe.cli.train", "vmoe.cli.eval", "vmoe.backbones.gpt2_host", "vmoe.report.plots", "torch.distributed"]


def together(processes: int, folder: Path, function: Callable[..., Any], *arguments: Any) -> list[Path]:
    """Call a function in several processes that know each other as those of torchrun do, in this working directory.

    What each prints goes into a file of the folder, which is returned; in the order of the ranks.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder.mkdir(exist_ok=True)
    logs = [folder / str(rank) for rank in range(processes)]
    running = [
        context.Process(target=_run, args=(rank, processes, port, str(Path.cwd()), str(log), function, arguments))
        for rank, log in enumerate(logs)
    ]
    for process in running:
        process.start()
    for process in running:
        process.join(TIMEOUT)
    try:
        told = "\n".join(log.read_text()[-3000:] for log in logs if log.exists())
        assert [process.exitcode for process in running] == [0] * processes, told
    finally:
        for process in running:
            process.kill()
    return logs


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
    with open(log, "w") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        try:
            status = function(*arguments)
        except BaseException:
            traceback.print_exc()
            raise
    sys.exit(status)
