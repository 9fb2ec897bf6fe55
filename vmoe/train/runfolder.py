"""The run folder: everything a run leaves behind, written by its first process.

`config.yaml` (resolved), `environment.json`, `metrics.jsonl` (a line an entry: training or evaluation), `checkpoints/`
(see `CheckpointStore`), and `result.json` at the end.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from vmoe.config import CheckpointConfig
from vmoe.files import replace_file, write_json

from .checkpoint import CheckpointStore
from .distributed import Processes
from .lines import Lines
from .sinks import Sink
from .warn import tell

KEEP = CheckpointConfig()
PACKAGES = ("vmoe", "torch", "torchvision", "timm", "ffcv", "numpy", "numba", "transformers", "tiktoken")


class RunFolder:
    """Paths of a run, and the files it writes. Processes other than the first write nothing."""

    def __init__(self, path: Path, *, writes: bool, keep: CheckpointConfig = KEEP):
        self.path = path
        self.writes = writes
        self.checkpoints = CheckpointStore(
            path / "checkpoints", writes=writes, keep_best=keep.keep_best, keep_every=keep.keep_every
        )
        self.metrics = path / "metrics.jsonl"
        self.result = path / "result.json"
        self.lines = Lines(self.metrics)
        self.sinks: list[Sink] = []

    def refuse_if_used(self) -> None:
        """Raise `ValueError` if a run has written here: its files would be lost or mixed up."""
        if self.metrics.exists() or self.checkpoints.paths or self.result.exists():
            raise ValueError(
                f"output: {self.path} already holds a run; choose another folder, remove it, or go on with it by"
                " train.resume=auto"
            )

    def start(self, config: str, processes: Processes, *, step: int, evaluated: int) -> None:
        """Write config and environment; `rewind` the metrics.

        step, evaluated: of its training and of its latest evaluation.
        """
        if not self.writes:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        replace_file(self.path / "config.yaml", config.encode())
        write_json(self.path / "environment.json", describe_environment(processes))
        self.rewind(step=step, evaluated=evaluated)

    def rewind(self, *, step: int, evaluated: int) -> None:
        """Drop what metrics a run that goes on from there will write again."""
        if self.writes:
            latest = {"train": step, "evaluation": evaluated}
            self.lines.keep(lambda entry: entry["step"] <= latest.get(entry["kind"], step))

    def describe_last(self) -> str:
        """Where the last good checkpoint is, for errors."""
        last = self.checkpoints.last
        return f"the last checkpoint is {last}" if last.exists() else "there is no checkpoint yet"

    def log(self, entry: dict[str, Any]) -> None:
        """Append a line to the metrics, and hand it to the sinks. A full disk ends neither the run nor loses a line."""
        if not self.writes:
            return
        self.lines.append(json.dumps(entry))
        for sink in [*self.sinks]:
            try:
                sink.log(entry)
            except OSError as error:
                self.sinks.remove(sink)
                tell(f"{type(sink).__name__} could not be written: {error}; it gets no more of this run")

    @contextmanager
    def logging_to(self, sinks: list[Sink]) -> Iterator[None]:
        """Hand what is logged within to these sinks too, and close them at the end."""
        self.sinks = [*sinks]
        try:
            yield
        finally:
            self.sinks = []
            self.lines.write()
            for sink in sinks:
                try:
                    sink.close()
                except OSError as error:
                    tell(f"{type(sink).__name__} could not be closed: {error}")


def describe_environment(processes: Processes) -> dict[str, Any]:
    """Versions, source commit, device, command and time: what a reported number needs beside it."""
    device = processes.device
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "commit": _commit(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine() + " CPU",
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "processes": processes.world,
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit vmoe's source is at, ``+changes`` if it differs; None for an installed package."""
    source = Path(__file__).parent
    commands = (["git", "rev-parse", "HEAD"], ["git", "status", "--porcelain", "--untracked-files=no"])
    try:
        commit, changes = (
            subprocess.run(command, cwd=source, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
            for command in commands
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+changes" if changes else "")
