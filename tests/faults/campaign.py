"""Kill runs at moments drawn at random, start them again, and compare what they end with to a run that nobody killed.

python tests/faults/campaign.py [--moments 32] [--seed 0] [--output FILE]

Every moment is a place in the code (a micro-batch, an update, an evaluation, a snapshot, each step of writing a
checkpoint, a line of the log, the run's end), a number of its calls, SIGKILL or SIGTERM, one or two processes, images
or text. The run is started again (and in some killed again) with train.resume=auto. Then weights, moving average,
optimizer, controllers, counters, the log's lines but for their times, and the best checkpoints have to be bitwise those
of the run that was never killed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from bombs import Bomb
from fault_world import Ended, make_fault_world, run

INTERRUPTED = 75
# Of each place the most calls that a run makes, or so: bombs beyond never go off, and are drawn anew.
CALLS = {
    "micro-batch": 26,
    "update": 13,
    "after the update": 18,
    "reading": 16,
    "evaluation": 9,
    "snapshot": 10,
    "digest": 9,
    "write": 9,
    "flush": 40,
    "rename": 24,
    "link": 14,
    "log": 9,
    "end": 1,
}
PRECIOUS = ("snapshot", "digest", "write", "flush", "rename", "link")  # of writing a checkpoint
TIMES = ("images_per_second", "tokens_per_second", "data_wait", "data_wait_max", "resident_gib")


HEAD = """\
# A campaign of kills

`python tests/faults/campaign.py --moments 40 --output docs/results/kill_campaign.md`: runs of 15 steps on images, and
of 14 on text, in one process and in two, that are killed or told to end at a place and a call drawn at random, and
started again with `train.resume=auto`. Compared with a run that nobody stopped, bit by bit: weights, moving average,
optimizer, controllers, counters, names and contents of the checkpoints, the lines of `metrics.jsonl` and `result.json`
but for times. What is called so often in one run is not in every other: a second bomb may not go off, and its run then
ends with 0.

| moment | exit statuses | after going on |
| --- | --- | --- |"""


@dataclass(frozen=True)
class Moment:
    """bombs: of the runs one after another. victim: the process that has them."""

    config: str
    processes: int
    victim: int
    bombs: tuple[Bomb, ...]

    def __str__(self) -> str:
        what = ", then ".join(f"{bomb.deed} at call {bomb.call} of {bomb.place}" for bomb in self.bombs)
        return f"{self.config} in {self.processes}: process {self.victim} {what}"


def draw(generator: random.Random, number: int) -> Moment:
    """Moments go round places, so that a campaign has all of them; everything else is drawn."""
    places = list(CALLS)
    processes = 1 + number % 2

    def bomb(place: str) -> Bomb:
        deed = "is terminated" if generator.random() < 0.3 and place not in ("end",) else "is killed"
        return Bomb(place, generator.randint(1, CALLS[place]), deed)

    place = places[(number // 2) % len(places)]
    # The first process alone writes, so that a second one never comes to these places.
    alone = (*PRECIOUS, "log", "end")
    victim = 0 if place in alone else generator.randrange(processes)
    bombs = [bomb(place)]
    if generator.random() < 0.25:
        bombs.append(bomb(generator.choice([name for name in places if victim == 0 or name not in alone])))
    return Moment(generator.choice(("images.yaml", "images.yaml", "text.yaml")), processes, victim, tuple(bombs))


@dataclass(frozen=True)
class Outcome:
    """went_off: how many bombs did. differences: what is not as in the run that was never killed; empty if all is."""

    went_off: int
    differences: tuple[str, ...]
    seconds: float
    statuses: tuple[tuple[int | None, ...], ...]


def play(moment: Moment, output: str) -> Outcome:
    """Run, be killed, go on, compare."""
    start, went_off, statuses = time.monotonic(), 0, []
    shutil.rmtree(output, ignore_errors=True)
    command = ("train", moment.config, f"output={output}", "train.resume=auto")
    wrong: list[str] = []
    for bomb in moment.bombs:
        ended = run(*command, processes=moment.processes, bombs={moment.victim: bomb})
        statuses.append(ended.statuses)
        went_off += ended.stopped_after is not None
        wrong += unexpected(ended, bomb, moment)
    ended = run(*command, processes=moment.processes)
    statuses.append(ended.statuses)
    if set(ended.statuses) != {0}:
        wrong.append(f"the run that went on ended with {ended.statuses}: {ended.line()}")
    else:
        wrong += differences(Path(output), never_killed(moment.config, moment.processes))
    return Outcome(went_off, tuple(wrong), time.monotonic() - start, tuple(statuses))


def unexpected(ended: Ended, bomb: Bomb, moment: Moment) -> list[str]:
    """What is odd about how a run with a bomb ended."""
    if None in ended.statuses:
        return [f"processes hung: {ended.statuses}"]
    if ended.stopped_after is None:
        return [] if set(ended.statuses) == {0} else [f"ended with {ended.statuses} before the bomb: {ended.line()}"]
    if bomb.deed == "is terminated":
        # Late in a run nothing is left to stop.
        ok = set(ended.statuses) <= {INTERRUPTED, 0}
        return [] if ok else [f"SIGTERM ended it with {ended.statuses}: {ended.line(moment.victim)}"]
    others = [status for rank, status in enumerate(ended.statuses) if rank != moment.victim]
    if ended.statuses[moment.victim] != -9 or any(status not in (0, 2) for status in others):
        return [f"SIGKILL ended it with {ended.statuses}: {ended.told[1 - moment.victim][-500:]}"]
    return []


@cache
def never_killed(config: str, processes: int) -> Path:
    output = Path(f"runs/whole-{Path(config).stem}-{processes}")
    ended = run("train", config, f"output={output}", processes=processes)
    assert set(ended.statuses) == {0}, ended
    return output


def differences(one: Path, other: Path) -> list[str]:
    """Where two run folders differ, bit by bit; times, and what follows from them, aside."""
    found = []
    for name in ("last.pt", "best.pt"):
        first, second = (load(folder / "checkpoints" / name) for folder in (one, other))
        found += [f"{name}: {key}" for key in unequal(first, second)]
    names = [sorted(path.name for path in (folder / "checkpoints").iterdir()) for folder in (one, other)]
    if names[0] != names[1]:
        found.append(f"checkpoints {names[0]}, not {names[1]}")
    logs = [read_log(folder / "metrics.jsonl") for folder in (one, other)]
    if logs[0] != logs[1]:
        found.append("metrics.jsonl")
    results = [without_times(json.loads((folder / "result.json").read_text())) for folder in (one, other)]
    found += [f"result.json: {key}" for key in results[0] if results[0][key] != results[1].get(key)]
    return found


def load(path: Path) -> Any:
    contents = torch.load(path, weights_only=True)
    contents.pop("digest", None)
    contents["config"].pop("output")
    contents["config"]["train"].pop("resume")
    for key in ("train_seconds",):
        contents["training"].pop(key)
    return contents


def unequal(one: Any, other: Any, name: str = "") -> list[str]:
    """The names of what differs in nested values."""
    if isinstance(one, dict) and isinstance(other, dict):
        pairs = [(f"{name}/{key}", one.get(key, ...), other.get(key, ...)) for key in sorted({*one, *other}, key=str)]
        return [found for key, first, second in pairs for found in unequal(first, second, key)]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        both = enumerate(zip(one, other, strict=True))
        return [found for place, (a, b) in both for found in unequal(a, b, f"{name}/{place}")]
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        same = one.shape == other.shape and one.dtype == other.dtype and torch.equal(bits(one), bits(other))
    else:
        same = type(one) is type(other) and (one == other or one != one)
    return [] if same else [name]


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().flatten().view(torch.uint8)


def read_log(path: Path) -> list[dict[str, Any]]:
    return [without_times(json.loads(line)) for line in path.read_text().splitlines()]


def without_times(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in TIMES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=32, help="bombs that have to go off (32)")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (0)")
    parser.add_argument("--output", type=Path, help="file for a table of the moments in Markdown")
    options = parser.parse_args()
    output = options.output and options.output.resolve()
    generator, number, went_off, rows, failed = random.Random(options.seed), 0, 0, [], 0
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        make_fault_world(Path(folder))
        while went_off < options.moments:
            moment = draw(generator, number)
            outcome = play(moment, f"runs/killed-{number}")
            shutil.rmtree(f"runs/killed-{number}", ignore_errors=True)
            number += 1
            went_off += outcome.went_off
            failed += bool(outcome.differences)
            result = "; ".join(outcome.differences) or "bitwise equal"
            ends = ", then ".join(" and ".join(map(str, statuses)) for statuses in outcome.statuses)
            print(f"{went_off:3d} {moment}: {ends}; {result} ({outcome.seconds:.1f} s)", flush=True)
            if outcome.went_off:
                rows.append(f"| {moment} | {ends} | {result} |")
        os.chdir("/")
    summary = f"{went_off} bombs went off in {number} runs (seed {options.seed}); {failed} runs differed"
    print(summary)
    if output:
        output.write_text("\n".join([HEAD, *rows, "", summary + ".", ""]))
    raise SystemExit(failed > 0)


if __name__ == "__main__":
    main()
