"""Runs in processes that something befalls: a small world of data and configs, and what became of each process."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path

from bombs import TIME_OF_FAULT, Bomb

TESTS = Path(__file__).resolve().parents[1]
sys.path += [str(TESTS), str(TESTS / "cli")]  # for scripts too

from together import Running, begin  # noqa: E402
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


def wait_for_all(running: Running, limit: float) -> float:
    """Until all have ended, for so many seconds at most; when the last one ended that did."""
    deadline, ended, left = time.monotonic() + limit, time.time(), list(running.processes)
    while left and time.monotonic() < deadline:
        wait([process.sentinel for process in left], deadline - time.monotonic())
        still = [process for process in left if process.is_alive()]
        if len(still) < len(left):
            ended, left = time.time(), still
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
    fault = Path.cwd() / TIME_OF_FAULT
    fault.unlink(missing_ok=True)
    given = (arguments, dict(bombs or {}), dict(environment or {}))
    running = begin(processes, Path.cwd() / "processes", command, *given)
    ended = wait_for_all(running, limit)
    statuses = tuple(process.exitcode for process in running.processes)
    for process in running.processes:
        process.kill()
        process.join()
    since = ended - float(fault.read_text()) if fault.exists() else None
    return Ended(statuses, tuple(running.told()), since)


def command(arguments: tuple[str, ...], bombs: dict[int, Bomb], environment: dict[str, str]) -> int:
    """In a process: its bomb, and the command."""
    from vmoe.cli import main

    rank = int(os.environ["RANK"])
    if os.environ["WORLD_SIZE"] == "1":  # a process alone is started without torchrun
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
            del os.environ[name]
    os.environ |= environment
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if rank in bombs:
        bombs[rank].arm()
    return main(list(arguments))
