"""Fuzzes every reader for a while and counts: `make fuzz`, or

python tests/hostile/fuzz.py --seconds 600 [--only NAME] [--json FILE]

A failure prints the smallest file that hypothesis finds for it, in base64; exit status 1.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import io
import json
import os
import platform
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).parents[2]
for part in ("cli", "report", "."):
    sys.path.append(str(ROOT / "tests" / part))

from fuzz_mutations import mutated  # noqa: E402
from fuzz_targets import Target, targets  # noqa: E402
from hostile_case import MIB  # noqa: E402
from hypothesis import HealthCheck, Phase, given, settings  # noqa: E402
from hypothesis import seed as seeded  # noqa: E402

DEADLINE = 10.0  # seconds for one file
MEMORY = 4096 * MIB  # above what the process has when it begins
ROUND = 200  # examples between looks at the clock


class Hang(BaseException):
    """A file took longer than the deadline."""


class Counted:
    """Reads mutated files of one target. examples: read so far; accepted: of these, gave a value."""

    def __init__(self, target: Target, folder: Path):
        self.target = target
        self.path = folder / target.name
        self.examples = self.accepted = 0
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for name, content in target.beside.items():
            (folder / name).write_bytes(content)

    def read(self, content: bytes) -> None:
        """Raises what is no error of the command line's."""
        from vmoe.cli import USERS_ERRORS

        self.path.write_bytes(content)
        self.examples += 1
        quiet = io.StringIO()
        try:
            with deadline(DEADLINE), contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
                self.target.read(self.path)
        except USERS_ERRORS as error:
            if not str(error):
                raise AssertionError(f"a {type(error).__name__} without a word") from error
            return
        self.accepted += 1

    def fuzz(self, examples: int, seed: int) -> None:
        """So many examples; raises the failure of the smallest that fails."""

        @seeded(seed)
        @settings(
            max_examples=examples,
            deadline=None,
            report_multiple_bugs=False,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate, Phase.shrink),
        )
        @given(mutated(self.target.seeds))
        def read(content: bytes) -> None:
            self.read(content)

        read()


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300, help="for all readers together (300)")
    parser.add_argument("--only", help="readers whose names hold this")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where the counts go")
    options = parser.parse_args()
    from hostile_world import make_good_world
    from run_folders import image_run

    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("world").mkdir()
        os.chdir("world")
        make_good_world(Path.cwd())
        image_run(Path("made"))
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, resource.RLIM_INFINITY))
        all_ = targets(Path.cwd(), Path.cwd() / "made")
        chosen = {name: target for name, target in all_.items() if not options.only or options.only in name}
        found = {}
        for name, target in chosen.items():
            found[name] = run_one(name, target, options.seconds / len(chosen), options.seed)
        os.chdir(ROOT)
    if options.json is not None:
        machine = f"{len(os.sched_getaffinity(0))} cores of {platform.machine()}, Python {platform.python_version()}"
        kept = json.loads(options.json.read_text()) if options.json.exists() else {"note": ""}
        kept |= {
            "seconds": round(options.seconds),
            "deadline": DEADLINE,
            "machine": machine,
            "targets": {**kept.get("targets", {}), **found},
        }
        options.json.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return int(any(one["failures"] for one in found.values()))


def run_one(name: str, target: Target, seconds: float, seed: int) -> dict[str, int]:
    """Fuzz one reader until its time is over; of each kind of failure the first is printed."""
    failures: set[str] = set()
    with tempfile.TemporaryDirectory() as folder:
        counted, end = Counted(target, Path(folder)), time.monotonic() + seconds
        while time.monotonic() < end:
            seed += 1
            before = counted.examples
            try:
                counted.fuzz(min(ROUND, max(5, counted.examples)), seed)
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                lines = traceback.extract_tb(error.__traceback__)
                where = next((f"{one.filename}:{one.lineno}" for one in lines[::-1] if "/vmoe/" in one.filename), "?")
                if (kind := f"{type(error).__name__} at {where}") not in failures:
                    failures.add(kind)
                    content = counted.path.read_bytes() if counted.path.exists() else b""
                    print(
                        f"{name}: {kind}: {str(error)[:300]}\n  {base64.b64encode(content).decode()[:2000]}", flush=True
                    )
            if counted.examples == before:
                break
    print(f"{name}: {counted.examples:,} examples, {counted.accepted:,} read, {len(failures)} failures", flush=True)
    return {"examples": counted.examples, "accepted": counted.accepted, "failures": len(failures)}


if __name__ == "__main__":
    sys.exit(main())
