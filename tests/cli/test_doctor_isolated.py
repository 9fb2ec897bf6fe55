"""Questions in a process of their own; the machine's facts, read from files that are made up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vmoe.cli.doctor.isolated import NoAnswerError, Once, isolated, streamed
from vmoe.cli.doctor.machine import Machine, Space

MINUTE = 60.0


def raising(error: Exception):
    raise error


def die(number: int) -> None:
    print("about to die", file=sys.stderr, flush=True)
    os.kill(os.getpid(), number)


def test_an_answer_comes_from_another_process(capfd):
    def answer():
        print("noise")
        subprocess.run(["echo", "more noise"], check=True)
        return {"pid": os.getpid()}

    assert isolated(answer, MINUTE)["pid"] != os.getpid()
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("question", "says"),
    [
        (lambda: raising(ValueError("data.train is 'x'")), r"^data.train is 'x'$"),
        (lambda: raising(KeyError("x")), r"^KeyError: 'x'$"),
        (lambda: die(signal.SIGKILL), r"^its process ended by SIGKILL \(about to die\)$"),
        (lambda: os._exit(3), r"^its process ended with exit status 3$"),
        (lambda: lambda: 0, "^AttributeError: .*pickle"),
    ],
)
def test_what_goes_wrong_there_is_said_here(question, says):
    with pytest.raises(NoAnswerError, match=says):
        isolated(question, MINUTE)


def test_what_hangs_is_ended_with_what_it_started(tmp_path):
    left = tmp_path / "pid"

    def hang():
        child = subprocess.Popen(["sleep", "1000"])
        left.write_text(str(child.pid))
        time.sleep(1000)

    with pytest.raises(NoAnswerError, match=r"no answer within 0\.5 seconds"):
        isolated(hang, 0.5)
    stat = Path(f"/proc/{left.read_text()}/stat") if left.exists() else None
    deadline = time.monotonic() + 10
    while stat is not None and stat.exists() and stat.read_text().split()[2] != "Z" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert stat is None or not stat.exists() or stat.read_text().split()[2] == "Z"  # nobody may be there to reap it


def test_a_question_is_asked_once(tmp_path):
    asked = tmp_path / "asked"

    def count(error: Exception | None):
        with asked.open("a") as file:
            file.write("x")
        if error is not None:
            raise error
        return 7

    good, bad = Once(lambda: count(None), MINUTE), Once(lambda: count(ValueError("no")), MINUTE)
    assert not asked.exists()
    assert (good.value, good.error, good.value) == (7, None, 7)
    assert (bad.error, bad.value, bad.error) == ("no", None, "no")
    assert asked.read_text() == "xx"


def test_questions_are_answered_beside_each_other(tmp_path):
    """Each waits for the other to have begun, so that one after the other they would wait for ever."""

    def meet(own: str, other: str) -> str:
        (tmp_path / own).touch()
        while not (tmp_path / other).exists():
            time.sleep(0.01)
        return own

    first, second = Once(lambda: meet("a", "b"), 10.0), Once(lambda: meet("b", "a"), 10.0)
    first.start()
    second.start()
    second.start()  # which changes nothing
    assert (first.value, second.value) == ("a", "b")


def test_one_that_failed_is_not_asked():
    known = Once.failed("no torch")
    known.start()
    assert (known.value, known.error) == (None, "no torch")


def test_values_come_one_by_one_until_something_goes_wrong():
    def source():
        yield 1
        yield 2
        raise ValueError("no third")

    values = streamed(source, MINUTE)
    assert [next(values), next(values)] == [1, 2]
    with pytest.raises(NoAnswerError, match=r"^no third$"):
        next(values)
    assert list(streamed(lambda: iter("ab"), MINUTE)) == ["a", "b"]


def machine(root: Path, **files: str) -> Machine:
    """By names whose double underscores are slashes and whose single ones are dots."""
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Machine(root)


MEMINFO = "MemTotal:  1000 kB\nMemFree: 10 kB\nMemAvailable:  600 kB\nHugePages_Total: 0\n"


@pytest.mark.parametrize(
    ("files", "quota", "memory"),
    [
        ({}, None, Space(1_024_000, 614_400)),
        ({"sys__fs__cgroup__cpu_max": "250000 100000\n"}, 2.5, Space(1_024_000, 614_400)),
        ({"sys__fs__cgroup__cpu_max": "max 100000\n"}, None, Space(1_024_000, 614_400)),
        ({"sys__fs__cgroup__memory_max": "500000\n"}, None, Space(500_000, 500_000)),
        ({"sys__fs__cgroup__memory_max": "800000\n"}, None, Space(800_000, 614_400)),
        ({"sys__fs__cgroup__memory_max": "max\n"}, None, Space(1_024_000, 614_400)),
    ],
)
def test_a_containers_limits(tmp_path, files, quota, memory):
    fake = machine(tmp_path, proc__meminfo=MEMINFO, **files)
    assert fake.quota() == quota
    assert fake.memory() == memory


def test_limits_in_the_first_version_of_cgroups(tmp_path):
    folder = tmp_path / "sys/fs/cgroup"
    for name, text in (
        ("cpu/cpu.cfs_quota_us", "150000"),
        ("cpu/cpu.cfs_period_us", "100000"),
        ("memory/memory.limit_in_bytes", "9223372036854771712"),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text + "\n")
    fake = machine(tmp_path, proc__meminfo=MEMINFO)
    assert fake.quota() == 1.5
    assert fake.memory() == Space(1_024_000, 614_400)
    (folder / "cpu/cpu.cfs_quota_us").write_text("-1\n")
    assert fake.quota() is None


def test_the_driver(tmp_path):
    text = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5\nGCC version: 12.3.0\n"
    assert Machine(tmp_path).driver() is None
    assert machine(tmp_path, proc__driver__nvidia__version=text).driver() == "550.54.15"


def test_this_machine_has_facts():
    here = Machine()
    assert here.cores() >= 1
    assert 0 < here.memory().free <= here.memory().total
    assert here.open_files()[0] != 0
    assert here.version("torch")
    assert here.version("no such package") is None
    assert here.program("no such program", "python3", "sh")
