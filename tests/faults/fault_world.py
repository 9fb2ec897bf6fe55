"""Runs in processes that something befalls: a small world of data and configs, and what became of each process."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from bombs import TIME_OF_FAULT, Bomb

TESTS = Path(__file__).resolve().parents[1]
if str(TESTS / "cli") not in sys.path:  # also where no pytest has put it there
    sys.path.insert(0, str(TESTS / "cli"))

from processes import PRELOADED  # noqa: E402
from world import make_images  # noqa: E402

LIMIT = 120.0  # seconds for a run

# Whatever draws random numbers or remembers something is on.
IMAGES = """\
output: runs/run
model: {name: vit_tiny_patch16_224, drop_path_rate: 0.1, kwargs: {patch_size: 4, embed_dim: 32, depth: 2, num_heads: 2}}
moe: {gate: {kind: topk, bias_rate: 0.01, jitter: 0.1}, num_experts: 4, layers: all, experts: {kind: mlp, dropout: 0.1}}
data:
  loader: folder
  train: images/train
  val: images/val
  image_size: 8
  batch_size: 8
  eval_batch_size: 3
  workers: 1
augment: {mixup: 0.8, cutmix: 1.0, erasing: 0.25}
optimizer: {lr: 0.003, clip_grad: 1.0}
schedule: {epochs: 3, warmup_epochs: 1}
train: {device: cpu, precision: float32, log_every: 2, ema_decay: 0.9, evaluate: ema, accumulate: 2, timeout: 20}
checkpoint: {every_steps: 2, keep_best: 2, keep_every: 5}
"""

TEXT = """\
task: text
output: runs/run
model: {name: gpt2, dropout: 0.1, kwargs: {n_layer: 2, n_embd: 32, n_head: 2}}
moe: {gate: routing_free, num_experts: 4, layers: all}
data: {train: text.tokens, val: text.tokens, block_size: 16, batch_size: 8, eval_batch_size: 3}
optimizer: {lr: 0.01, betas: [0.9, 0.95], clip_grad: 1.0}
schedule: {epochs: 2, warmup_epochs: 0.5, max_steps: 14}
train: {device: cpu, precision: float32, log_every: 2, eval_every_steps: 4, accumulate: 2, timeout: 20}
checkpoint: {every_steps: 3}
"""


def make_fault_world(folder: Path) -> None:
    """What the configs need, in a folder that becomes the working directory."""
    from vmoe.data.tokens import BytesTokenizer, write_tokens

    make_images(folder / "images/train", ("dark", "light"), 20)
    make_images(folder / "images/val", ("dark", "light"), 5)
    (folder / "images.yaml").write_text(IMAGES)
    (folder / "text").mkdir()
    (folder / "text" / "a.txt").write_text("abcd efgh " * 120)
    write_tokens([folder / "text"], folder / "text.tokens", BytesTokenizer(), workers=1, progress=False)
    (folder / "text.yaml").write_text(TEXT)


@dataclass(frozen=True)
class Ended:
    """statuses: of each process, -N for signal N, None of one that had not ended in time. told: what
    each wrote. stopped_after: seconds from the fault to the end of the last process, None without a fault.
    """

    statuses: tuple[int | None, ...]
    told: tuple[str, ...]
    stopped_after: float | None

    def line(self, process: int = 0) -> str:
        """The line of the error, or the last one."""
        lines = [line for line in self.told[process].splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("vmoe ")]
        return (errors or lines or [""])[-1]


def wait_for_all(processes: Sequence[BaseProcess], limit: float) -> float:
    """Until all have ended, for so many seconds at most; when the last one ended that did."""
    deadline, ended, running = time.monotonic() + limit, time.time(), list(processes)
    while running and time.monotonic() < deadline:
        wait([process.sentinel for process in running], deadline - time.monotonic())
        left = [process for process in running if process.is_alive()]
        if len(left) < len(running):
            ended, running = time.time(), left
    return ended


def run(
    *arguments: str,
    processes: int = 1,
    bombs: Mapping[int, Bomb] | None = None,
    environment: Mapping[str, str] | None = None,
    limit: float = LIMIT,
) -> Ended:
    """A command in several processes, as `torchrun` would start them in the working directory; bombs: by rank.

    limit: seconds after which what still runs is killed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    here = Path.cwd()
    fault = here / TIME_OF_FAULT
    fault.unlink(missing_ok=True)
    logs = [here / f"process{rank}.log" for rank in range(processes)]
    running = [
        context.Process(
            target=one_process,
            args=(
                rank,
                processes,
                port,
                arguments,
                str(here),
                str(logs[rank]),
                (bombs or {}).get(rank),
                environment or {},
            ),
        )
        for rank in range(processes)
    ]
    for process in running:
        process.start()
    ended = wait_for_all(running, limit)
    statuses = tuple(process.exitcode for process in running)
    for process in running:
        process.kill()
        process.join()
    since = ended - float(fault.read_text()) if fault.exists() else None
    return Ended(statuses, tuple(log.read_text(errors="replace") if log.exists() else "" for log in logs), since)


def one_process(
    rank: int,
    world: int,
    port: int,
    arguments: tuple[str, ...],
    folder: str,
    log: str,
    bomb: Bomb | None,
    environment: Mapping[str, str],
) -> None:
    """The environment that torchrun sets, the bomb, and the command."""
    os.chdir(folder)
    multiprocessing.set_start_method("fork", force=True)  # for the loaders' workers, as in a process of its own
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    os.environ |= environment
    if world > 1:
        os.environ |= {
            **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)},
            **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
        }
    from vmoe.cli import main

    with open(log, "w", buffering=1) as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        os.dup2(file.fileno(), 2)  # what is written past Python's sys.stderr, too
        try:
            if bomb is not None:
                bomb.arm()
            status: Any = main(list(arguments))
        except SystemExit as exit_:
            status = exit_.code
        except BaseException:
            import traceback

            traceback.print_exc()
            status = 1
    sys.exit(status)
