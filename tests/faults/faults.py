"""Injected faults: what befalls which process, how the run ends, and what is left of it.

`python tests/faults/faults.py` writes docs/results/faults.md from what it sees; the tests hold some of it.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bombs import SPOILED, Bomb
from fault_world import LIMIT, Ended, make_fault_world, run

TARGET = Path(__file__).resolve().parents[2] / "docs" / "results" / "faults.md"
RUN = Path("runs/run")
Overrides = tuple[str, ...]


@dataclass(frozen=True)
class Fault:
    """name: for people. bombs: by rank. statuses: that the processes end with. says: a pattern of what one of them,
    `teller`, wrote. before: what is done to the folder first, once a run has been stopped there. goes_on: whether the
    run, started again, ends with 0. limit: seconds, after which what still runs is killed.
    """

    name: str
    statuses: tuple[int, ...]
    says: str
    bombs: dict[int, Bomb] = field(default_factory=dict)
    overrides: Overrides = ()
    before: Callable[[], None] | None = None
    teller: int = 0
    goes_on: bool = True
    limit: float = LIMIT
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def processes(self) -> int:
        return len(self.statuses)


def damage(*names: str, how: Callable[[Path], None]) -> Callable[[], None]:
    """Do something to checkpoints of a run that was stopped."""

    def before() -> None:
        stop_a_run()
        for name in names:
            how(RUN / "checkpoints" / name)

    return before


def stop_a_run() -> None:
    ended = run("train", "images.yaml", bombs={0: Bomb("after the update", 12, "is terminated")})
    assert ended.statuses == (75,), ended


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


FAULTS: Sequence[Fault] = (
    Fault("SIGTERM in a step", (75,), r"interrupted by SIGTERM", {0: Bomb("micro-batch", 9, "is terminated")}),
    Fault("SIGINT (Ctrl-C) in a step", (75,), r"interrupted by SIGINT", {0: Bomb("micro-batch", 9, "is interrupted")}),
    Fault(
        "SIGTERM to one of two processes",
        (75, 75),
        r"interrupted by SIGTERM",
        {1: Bomb("micro-batch", 9, "is terminated")},
    ),
    Fault("SIGTERM in an evaluation", (75,), r"interrupted by SIGTERM", {0: Bomb("evaluation", 2, "is terminated")}),
    Fault(
        "SIGTERM to one of two in an evaluation",
        (75, 75),
        r"interrupted by SIGTERM",
        {1: Bomb("evaluation", 1, "is terminated")},
    ),
    Fault(
        "SIGTERM while a checkpoint is written",
        (75,),
        r"interrupted by SIGTERM",
        {0: Bomb("flush", 9, "is terminated")},
    ),
    Fault("SIGTERM, and again", (-15,), r"once more stops at once", {0: Bomb("micro-batch", 9, "is terminated twice")}),
    Fault("SIGKILL in a step", (-9,), r"step 4", {0: Bomb("micro-batch", 9, "is killed")}),
    Fault("SIGKILL while a checkpoint is renamed", (-9,), r"step 2", {0: Bomb("rename", 9, "is killed")}),
    Fault(
        "SIGKILL of one of two in a step",
        (2, -9),
        r"another process of this run is gone",
        {1: Bomb("micro-batch", 9, "is killed")},
    ),
    Fault(
        "SIGKILL of the first of two in an evaluation",
        (-9, 2),
        r"another process of this run is gone",
        {0: Bomb("evaluation", 2, "is killed")},
        teller=1,
    ),
    Fault(
        "an error in one of two processes' loader",
        (2, 2),
        r"process 1 of 2 failed: TimeoutError: no batch came within 5 s",
        {1: Bomb("loader", 9, "times out")},
    ),
    Fault(
        "an error in one of two processes' loader in an evaluation",
        (2, 2),
        r"process 1 of 2 failed: TimeoutError",
        {1: Bomb("loader of the evaluation", 1, "times out when asked")},
    ),
    Fault(
        "one of two processes runs out of memory",
        (2, 1),
        r"another process of this run is gone",
        {1: Bomb("micro-batch", 9, "runs out of memory")},
    ),
    Fault("one of two processes has a bug", (2, 1), r"another process .* gone", {1: Bomb("update", 5, "has a bug")}),
    Fault(
        "one of two processes hangs",
        (2, -9),
        r"did not answer for 5 s",
        {1: Bomb("micro-batch", 9, "hangs")},
        overrides=("train.timeout=5",),
        limit=20,
    ),
    Fault("one loss is not a number", (0,), r"no update \(1 of at most 20 in a row\)", {0: Bomb("loss", 7, "is nan")}),
    Fault(
        "one loss of one of two processes is not a number",
        (0, 0),
        r"no update \(1 of at most 20 in a row\)",
        {1: Bomb("loss", 7, "is nan")},
    ),
    Fault(
        "every loss from one on is not a number",
        (2,),
        r"4 steps in a row had no finite loss .* the last .*checkpoint is runs/run/checkpoints/last.pt",
        {0: Bomb("loss", 13, "is nan", ever_after=True)},
        overrides=("train.max_nonfinite=3",),
    ),
    Fault(
        "a loss is 1,000 times the others",
        (0,),
        r"back to runs/run/checkpoints/last.pt, step \d+",
        {0: Bomb("loss", 55, "is huge")},
        overrides=("train.spike_factor=5", "schedule.epochs=8"),
    ),
    Fault(
        "the disk is full for one checkpoint", (0,), r"could not be written", {0: Bomb("write", 3, "meets a full disk")}
    ),
    Fault(
        "the disk stays full",
        (2,),
        r"could not be written: .*No space left on device",
        {0: Bomb("write", 3, "meets a full disk", ever_after=True)},
    ),
    Fault("the disk fails in a flush", (0,), r"could not be written", {0: Bomb("flush", 12, "meets a failing disk")}),
    Fault(
        "the last checkpoint is cut short",
        (0,),
        r"last.pt: damaged",
        before=damage("last.pt", how=truncate),
        overrides=("train.resume=auto",),
    ),
    Fault(
        "a bit of the last checkpoint is flipped",
        (0,),
        r"last.pt: damaged",
        before=damage("last.pt", how=flip_a_bit),
        overrides=("train.resume=auto",),
    ),
    Fault(
        "the last checkpoint is gone",
        (0,),
        r"epoch",
        before=damage("last.pt", how=Path.unlink),
        overrides=("train.resume=auto",),
    ),
    Fault(
        "every checkpoint is damaged",
        (2,),
        r"last.pt: damaged",
        before=damage("last.pt", "previous.pt", "best.pt", how=truncate),
        overrides=("train.resume=auto",),
        goes_on=False,
    ),
    Fault(
        "an image is damaged while the run goes on",
        (2,),
        r"images/train/light/.*png",
        {0: Bomb("after the update", 2, "spoils an image")},
    ),
    Fault(
        "the loader's worker is killed",
        (2,),
        r"worker|killed",
        {0: Bomb("after the update", 4, "kills its workers")},
    ),
    Fault(
        "it goes on with 3 processes, among which 8 images cannot be shared",
        (2, 2, 2),
        r"allowed: 1, 2, 4, 8 processes",
        before=stop_a_run,
        overrides=("train.resume=auto",),
    ),
    Fault(
        "it goes on with 2 processes in place of 1",
        (0, 0),
        r"2 processes in place of 1: train.accumulate 1",
        before=stop_a_run,
        overrides=("train.resume=auto",),
    ),
    Fault(
        "a launcher starts it again after SIGKILL, without train.resume",
        (0,),
        r"epoch 2/3: step 8",
        before=lambda: assert_killed(),
        environment={"TORCHELASTIC_RESTART_COUNT": "1"},
    ),
)


def assert_killed() -> None:
    ended = run("train", "images.yaml", bombs={0: Bomb("micro-batch", 14, "is killed")})
    assert ended.statuses == (-9,), ended


HEAD = """\
# Injected faults

`python tests/faults/faults.py`: runs of 15 steps, 5 an epoch, on one, two or three processes of a small ViT with MoE
layers, a checkpoint every second step ([the config](../../tests/faults/fault_world.py)). Seconds are from the fault to
the end of the last process that ended by itself; None stands for one that hung, as it was told to, and was killed. The
steps of checkpoints are in brackets. Then the run is started again with `train.resume=auto`, on one process.
"""


@dataclass(frozen=True)
class Seen:
    """wrong: what is not as the fault says; empty if all is. left: what can be gone on from. after: how it ended when
    it was started again.
    """

    ended: Ended
    wrong: tuple[str, ...]
    left: str
    after: str


def inject(fault: Fault) -> Seen:
    """In the working directory, which holds the world of faults."""
    shutil.rmtree("runs", ignore_errors=True)
    if fault.before is not None:
        fault.before()
    command = ("train", "images.yaml", *fault.overrides)
    ended = run(
        *command, processes=fault.processes, bombs=fault.bombs, environment=fault.environment, limit=fault.limit
    )
    if SPOILED.exists():
        os.replace(SPOILED, sorted(Path("images/train/light").iterdir())[-1])
    found = tuple(-9 if status is None else status for status in ended.statuses)
    wrong = [] if found == fault.statuses else [f"statuses {ended.statuses}, not {fault.statuses}"]
    if not re.search(fault.says, ended.told[fault.teller]):
        wrong.append(f"nothing like {fault.says!r} in: {ended.told[fault.teller][-600:]}")
    hung = [rank for rank, status in enumerate(ended.statuses) if status is None]
    wrong += [f"process {rank} hung" for rank in hung if fault.bombs[rank].deed != "hangs"]
    left = what_is_left()
    again = run("train", "images.yaml", *fault.overrides, "train.resume=auto")
    if (again.statuses == (0,)) != fault.goes_on:
        wrong.append(f"started again it ended with {again.statuses}: {again.line()}")
    return Seen(ended, tuple(wrong), left, "goes on to its end" if again.statuses == (0,) else again.line())


def what_is_left() -> str:
    """Good checkpoints with their steps, and anything that has no business there."""
    from vmoe.train.checkpoint import read_checkpoint

    folder, found, odd = RUN / "checkpoints", [], []
    for path in sorted(folder.iterdir()) if folder.exists() else []:
        if path.suffix != ".pt":
            odd.append(path.name)
            continue
        try:
            found.append(f"{path.stem} ({read_checkpoint(path)['training']['step']})")
        except ValueError:
            found.append(f"{path.stem} (damaged)")
    finished = ["result"] if (RUN / "result.json").exists() else []
    return ", ".join([*found, *odd, *finished]) or "nothing"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="faults whose name has this in it; nothing is written")
    options = parser.parse_args()
    rows, failed = [], 0
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        make_fault_world(Path(folder))
        for fault in FAULTS:
            if options.only and options.only not in fault.name:
                continue
            seen = inject(fault)
            failed += bool(seen.wrong)
            print(f"{fault.name}: {seen.ended.statuses} {seen.wrong or 'as it should'}", flush=True)
            statuses = " and ".join(map(str, seen.ended.statuses))
            after = seen.ended.stopped_after
            message = told(seen.ended, fault)
            seconds = "–" if after is None else f"{after:.1f}"
            rows.append(f"| {fault.name} | {statuses} | {seconds} | {message} | {seen.left} | {seen.after} |")
        os.chdir("/")
    if not options.only and not failed:
        table = "| fault | exit statuses | seconds to the end | what is said | left, with the steps | started again |"
        TARGET.write_text("\n".join([HEAD, table, "| --- | --- | ---: | --- | --- | --- |", *rows, ""]))
    raise SystemExit(failed > 0)


def told(ended: Ended, fault: Fault) -> str:
    """The line that the fault's pattern is in, for a table."""
    lines = [line for line in ended.told[fault.teller].splitlines() if re.search(fault.says, line)]
    return (lines or [ended.line(fault.teller)])[-1].replace("|", "\\|")[:400]


if __name__ == "__main__":
    main()
