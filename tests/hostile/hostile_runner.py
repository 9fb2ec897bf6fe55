"""Runs hostile inputs: within time and memory, in this process or in one of its own, and says what was wrong."""

from __future__ import annotations

import contextlib
import ctypes
import io
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
import unicodedata
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import pytest
from hostile_case import CANARY, MIB, Hostile
from together import PRELOADED

MEMORY = 4096 * MIB  # above what the process has when it begins
IMPORTS = 240  # seconds that the first process may have to wait for them
MOST_MESSAGE = 3000  # characters
_CAPABILITIES_3 = 0x20080522  # the version of Linux's capability calls


class Ran(NamedTuple):
    """What came of a hostile input. peak: MiB above the start, where it was measured. left: new names, sorted."""

    status: int | str
    out: str
    err: str
    seconds: float
    peak: float | None
    left: list[str]


class OutOfTime(BaseException):
    """No error that the command line would report."""


def run_case(case: Hostile, folder: Path, *, alone: bool | None = None) -> Ran:
    """Make the input in the folder, which is the working directory, and run the command on it."""
    case.make()
    before = names_in(folder)
    ran = (run_alone if (case.alone if alone is None else alone) else run_here)(case)
    return ran._replace(left=sorted(names_in(folder) - before))


def run_here(case: Hostile) -> Ran:
    """In this process, under limits that are lifted again."""
    from vmoe.cli import main

    out, err = io.StringIO(), io.StringIO()
    status: int | str
    start = time.monotonic()
    with limited(case.seconds), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(list(case.command))
        except SystemExit as exit_:  # argparse
            status = int(exit_.code or 0)
        except OutOfTime:
            status = "a hang"
        except BaseException as error:
            status = f"{type(error).__name__}: {error}"[:300]
    return Ran(status, out.getvalue(), err.getvalue(), time.monotonic() - start, None, [])


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Limits of time and memory; no rights of root to read any file; nothing to read on standard input."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise OutOfTime

    handler = signal.signal(signal.SIGALRM, stop)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size_now() + MEMORY, hard))
    stdin, empty = os.dup(0), os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    rights = set_rights(0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        set_rights(rights)
        os.dup2(stdin, 0)
        os.close(stdin)
        os.close(empty)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGALRM, handler)


@contextlib.contextmanager
def sketched() -> Iterator[None]:
    """Within, the figures of pages are laid out and not drawn, which takes seconds a page."""
    from vmoe.report import plots
    from vmoe.report.run_page import drawing

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "FIGURES_A_PROCESS", 10**6)  # no processes of their own
        patch.setattr(drawing, "themed_svg", lambda ax: "")
        for where in (drawing, plots):
            patch.setattr(where, "save_png", lambda ax, path: Path(path))
        yield


def set_rights(effective: int) -> int:
    """Set this thread's effective capabilities (Linux), so that root too meets files it may not read; those before."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_3, 0)
    data = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; again for the upper 32
    assert libc.capget(header, data) == 0
    before = data[0] | data[3] << 32
    data[0], data[3] = effective & 0xFFFFFFFF, effective >> 32
    assert libc.capset(header, data) == 0
    return before


def size_now() -> int:
    """Bytes of this process's address space."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def run_alone(case: Hostile) -> Ran:
    """In a process of its own, killed when its time is over."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with tempfile.TemporaryDirectory() as log:
        process = context.Process(target=_alone, args=(case.command, case.seconds, os.getcwd(), log))
        start = time.monotonic()
        process.start()
        process.join(case.seconds + IMPORTS)
        seconds = time.monotonic() - start
        if hung := process.is_alive():
            process.kill()
            process.join()
        told = {name: _read(Path(log) / name) for name in ("out", "err", "took", "peak", "raised")}
    status: int | str = process.exitcode if process.exitcode is not None else "?"
    if hung or process.exitcode == -signal.SIGALRM:
        status = "a hang"
    elif process.exitcode is not None and process.exitcode < 0:
        status = f"killed by {signal.Signals(-process.exitcode).name}"
    status = told["raised"] or status
    peak = float(told["peak"]) if told["peak"] else None
    return Ran(status, told["out"], told["err"], float(told["took"] or seconds), peak, [])


def _alone(command: tuple[str, ...], seconds: float, folder: str, log: str) -> None:
    """The process: everything it says goes into files of the folder `log`."""
    import torch

    from vmoe.cli import main

    os.chdir(folder)
    multiprocessing.set_start_method("fork", force=True)  # for the loaders' workers, as in a process of its own
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (size_now() + MEMORY, resource.RLIM_INFINITY))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    signal.setitimer(signal.ITIMER_REAL, seconds)  # SIGALRM ends it, whatever it is doing
    set_rights(0)
    before, start = most_memory(), time.monotonic()
    with open(f"{log}/out", "w") as out, open(f"{log}/err", "w", buffering=1) as err:
        for file in (out, err):
            os.dup2(file.fileno(), 1 if file is out else 2)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = main(list(command))
            except SystemExit as exit_:
                status = int(exit_.code or 0)
            except BaseException as error:
                Path(log, "raised").write_text(f"{type(error).__name__}: {error}"[:300])
                status = 1
    for child in multiprocessing.active_children():  # of pools that end with their process, which this one is not
        child.kill()
    Path(log, "took").write_text(str(time.monotonic() - start))
    Path(log, "peak").write_text(str((most_memory() - before) / MIB))
    sys.exit(status)


def most_memory() -> int:
    """Bytes that this process, or any of those it started, has had in memory at most."""
    whose = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
    return max(resource.getrusage(who).ru_maxrss for who in whose) * 1024


def _read(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "replace") if path.exists() else ""


def names_in(folder: Path) -> set[str]:
    """Relative names of everything in a folder; links are not followed."""
    found, left = set(), [folder]
    while left:
        parent = left.pop()
        try:
            entries = list(os.scandir(parent))
        except PermissionError:
            continue
        for entry in entries:
            found.add(os.path.relpath(entry.path, folder))
            if entry.is_dir(follow_symlinks=False):
                left.append(Path(entry.path))
    return found


def wrong_with(case: Hostile, ran: Ran) -> list[str]:
    """Everything that must not be; empty where all is well."""
    told = ran.err if case.status == 2 else ran.out
    raw = {f"U+{ord(one):04X}" for one in ran.out + ran.err if _is_raw(one)}
    stray = [name for name in ran.left if not any(fnmatch(name, pattern) for pattern in case.leaves)]
    checks = {
        f"status {ran.status}, not {case.status}": ran.status != case.status,
        f"took {ran.seconds:.1f} s": ran.seconds > case.seconds,
        "a traceback": "Traceback" in ran.err,
        "code was run": Path(CANARY).exists(),
        f"raw characters {sorted(raw)}": bool(raw),
        f"left {stray}": bool(stray),
        f"left temporaries of {ran.left}": any(".tmp" in name for name in ran.left),
        f"a message of {len(ran.err):,} characters": len(ran.err) > MOST_MESSAGE,
        "no line that begins with the command": case.status == 2 and f"vmoe {case.command[0]}: " not in ran.err,
        **{f"{part!r} is not told": part not in told for part in case.says},
    }
    wrong = [what for what, is_so in checks.items() if is_so]
    if case.safe is not None and not wrong:
        try:
            case.safe()
        except AssertionError as error:
            wrong.append(f"not safe: {error}")
    return wrong


def _is_raw(character: str) -> bool:
    """Whether a terminal would obey it in place of showing it, or show other characters in another order."""
    return character not in "\n\t" and unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp")


def assert_well(case: Hostile, ran: Ran) -> None:
    if wrong := wrong_with(case, ran):
        pytest.fail(f"{'; '.join(wrong)}\n{ran.out[-600:]}\n{ran.err[-1500:]}", pytrace=False)
