"""Facts of the machine that need no more than Python, each read when it is asked for."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

UNLIMITED = 2**60  # bytes: version 1 of cgroups states a number like this where there is no limit


class Space(NamedTuple):
    """Bytes in all, and those that are free."""

    total: int
    free: int


@dataclass(frozen=True)
class Machine:
    """root: where proc, sys and dev lie. environment: of this process."""

    root: Path = Path("/")
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)

    def cores(self) -> int:
        """That this process may run on."""
        return len(os.sched_getaffinity(0))

    def quota(self) -> float | None:
        """Cores' worth of time that a container may use at once; None without such a limit."""
        try:
            allowed, period = self._cgroup("cpu.max").split()
        except OSError:
            try:
                allowed, period = self._cgroup("cpu/cpu.cfs_quota_us"), self._cgroup("cpu/cpu.cfs_period_us")
            except OSError:
                return None
        return None if allowed == "max" or int(allowed) < 0 else int(allowed) / int(period)

    def memory(self) -> Space:
        """RAM, within the limit of a container; what files occupy of it counts as free."""
        lines = (line.split() for line in (self.root / "proc/meminfo").read_text().splitlines())
        sizes = {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines}
        total, free = sizes["MemTotal"], sizes["MemAvailable"]
        for name in ("memory.max", "memory/memory.limit_in_bytes"):
            try:
                limit = self._cgroup(name)
            except OSError:
                continue
            if limit != "max" and int(limit) < UNLIMITED:
                total, free = min(total, int(limit)), min(free, int(limit))
        return Space(total, free)

    def shared_memory(self) -> Space:
        """/dev/shm, through which worker processes hand over their batches."""
        usage = shutil.disk_usage(self.root / "dev/shm")
        return Space(usage.total, usage.free)

    def open_files(self) -> tuple[int, int]:
        """How many a process may have: the limit, and how far the user may raise it."""
        return resource.getrlimit(resource.RLIMIT_NOFILE)

    def driver(self) -> str | None:
        """The version of NVIDIA's driver; None without one."""
        try:
            text = (self.root / "proc/driver/nvidia/version").read_text()
        except OSError:
            return None
        return next((word for word in text.split() if word[0].isdigit() and "." in word), text.strip())

    def version(self, package: str) -> str | None:
        """Of an installed package."""
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return None

    def requirements(self) -> list[str]:
        """What vmoe's own package states. Raises `PackageNotFoundError` where it is not installed as one."""
        return metadata.requires("vmoe") or []

    def program(self, *names: str) -> str | None:
        """The path of the first of these programs that is there."""
        return next((path for name in names if (path := shutil.which(name))), None)

    def _cgroup(self, name: str) -> str:
        return (self.root / "sys/fs/cgroup" / name).read_text().strip()
