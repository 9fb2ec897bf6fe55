"""Checks of what processes share: cores, threads, memory, open files, a compiler."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

from .finding import Finding, in_bytes, ok, problem, warning
from .reading import Reading, reading_of
from .situation import Situation

LITTLE_MEMORY = 4 * 2**30  # bytes that are free: torch with FFCV takes one or two of them
LITTLE_SHARED = 2**30  # bytes: containers often start with 64 MiB
FILES = 512  # that a process opens besides those of its workers
FILES_A_WORKER = 16  # pipes, and the batches that it hands over
THREADS = "OMP_NUM_THREADS"


def check_cores(at: Situation) -> list[Finding]:
    """How many cores there are, and whether a container gets that much of them."""
    cores, quota, all_of_them = at.machine.cores(), at.machine.quota(), os.cpu_count()
    text = f"{cores} of {all_of_them} may be used"
    if quota is None or quota >= cores:
        return [ok("cores", text)]
    share = max(1, int(quota / at.processes))
    advice = f"{THREADS}={share} and data.workers={share}, since both go by the number of cores"
    return [warning("cores", f"{text}, but only {quota:g} of them at a time, by the container's limit", advice)]


def check_threads(at: Situation) -> list[Finding]:
    """Whether the threads of all processes, and their loaders' workers, fit onto the cores."""
    cores, stated = at.machine.cores(), at.machine.environment.get(THREADS)
    if stated is not None and not (stated.isdecimal() and int(stated)):
        return [problem("threads", f"{THREADS} is {stated!r}", f"{THREADS}=1 or more, or unset")]
    threads = int(stated) if stated else (1 if at.processes > 1 else cores)  # torchrun sets 1
    share = max(1, cores // at.processes)
    text = f"{threads} of torch" if stated is None else f"{threads} of torch ({THREADS})"
    text += f" in each of {at.processes} processes" if at.processes > 1 else ""
    reading = reading_of(at.config, at.processes) if at.config is not None else None
    if reading is not None and reading.workers:
        text += f", {reading.workers} of the loader" + " in each" * (at.processes > 1)
    found = []
    if at.processes > cores:
        found.append(warning("threads", f"{text}, on {cores} cores", f"at most {cores} processes"))
    elif threads * at.processes > cores:
        found.append(warning("threads", f"{text}, on {cores} cores", f"{THREADS}={share}"))
    if reading is not None and reading.workers * at.processes > cores >= at.processes:
        found.append(warning("workers", f"{text}, on {cores} cores", f"data.workers={share}, or null"))
    return [*(found or [ok("threads", f"{text}, on {cores} cores")]), *_check_numba(at, reading)]


def _check_numba(at: Situation, reading: Reading | None) -> list[Finding]:
    name = "NUMBA_NUM_THREADS"
    stated = at.machine.environment.get(name)
    if stated is None or reading is None or not stated.isdecimal() or int(stated) >= reading.workers:
        return []
    text = f"is {stated}: FFCV reads with no more threads, and data.workers comes to {reading.workers}"
    return [warning(name, text, f"unset {name}")]


def check_memory(at: Situation) -> list[Finding]:
    """RAM, and how much of it is free."""
    memory = at.machine.memory()
    text = f"{in_bytes(memory.total)}, {in_bytes(memory.free)} free"
    if memory.free < LITTLE_MEMORY * at.processes:
        return [warning("memory", text, f"end something else: a process takes about {in_bytes(LITTLE_MEMORY / 2)}")]
    return [ok("memory", text)]


def check_shared_memory(at: Situation) -> list[Finding]:
    """/dev/shm, through which the folder loader's processes hand over their batches."""
    total, free = at.machine.shared_memory()
    text = f"{in_bytes(free)} of {in_bytes(total)} free in /dev/shm"
    advice = "a larger one (docker run --shm-size=8g), fewer data.workers, or data.loader=ffcv, which needs none"
    if at.config is None:
        if total < LITTLE_SHARED:
            return [warning("shared memory", f"{text}: little for data.loader=folder", advice)]
        return [ok("shared memory", text)]
    needed = at.processes * reading_of(at.config, at.processes).shared
    text = f"{text}, the loader's workers take up to {in_bytes(needed)}" if needed else f"{text}, the loader takes none"
    return [problem("shared memory", text, advice) if needed > free else ok("shared memory", text)]


def check_open_files(at: Situation) -> list[Finding]:
    """The limit of open files, against what workers open."""
    limit, most = at.machine.open_files()
    reading = reading_of(at.config, at.processes) if at.config is not None else None
    workers = reading.workers if reading is not None else at.machine.cores()
    needed = FILES + FILES_A_WORKER * workers
    if 0 <= limit < needed:
        raised = f"ulimit -n {max(needed, 4096) if most < 0 else min(most, max(needed, 4096))}"
        return [warning("open files", f"{limit} a process, where {workers} workers may need {needed}", raised)]
    return [ok("open files", f"{'any number' if limit < 0 else limit} a process")]


def check_compiler(at: Situation) -> list[Finding]:
    """What train.compile=true needs: a C++ compiler for CPUs; a C compiler, Python's headers and Triton for GPUs."""
    devices = at.devices.value
    if devices is None:
        return []
    stated = at.machine.environment
    lacking = []
    if devices.gpus:
        compiler = at.machine.program(*filter(None, (stated.get("CC"),)), "gcc", "clang", "cc")
        if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
            lacking.append("Python's headers (apt install python3-dev)")
        if at.machine.version("triton") is None:
            lacking.append("triton (pip install triton)")
    else:
        compiler = at.machine.program(*filter(None, (stated.get("CXX"),)), "g++", "clang++", "c++")
    if compiler is None:
        lacking.insert(0, "a compiler (apt install g++)")
    if not lacking:
        return [ok("torch.compile", f"{compiler}")]
    text = "train.compile=true will fail: not found: " + ", ".join(lacking)
    asked = at.config is not None and at.config.train.compile
    return [(problem if asked else warning)("torch.compile", text, "install these, or train.compile=false")]
