"""A run loses nothing: it stops as documented whatever befalls it, and goes on to the same end."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from bombs import Bomb
from campaign import Moment, play
from fault_world import make_fault_world, run
from faults import FAULTS, TARGET, inject

QUICK = {
    "SIGTERM to one of two processes",
    "SIGKILL of one of two in a step",
    "an error in one of two processes' loader in an evaluation",
    "the disk is full for one checkpoint",
}
# One moment of each kind: in a step, in an evaluation, in writing; images and text. The campaign has two processes too.
MOMENTS = (
    Moment("images.yaml", 1, 0, (Bomb("evaluation", 5, "is killed"),)),
    Moment("text.yaml", 1, 0, (Bomb("rename", 6, "is killed"), Bomb("micro-batch", 5, "is terminated"))),
)


@pytest.fixture(scope="module", autouse=True)
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_fault_world(folder)
        yield folder


@pytest.mark.parametrize(
    "fault",
    [pytest.param(fault, marks=[] if fault.name in QUICK else [pytest.mark.slow], id=fault.name) for fault in FAULTS],
)
def test_a_fault_ends_as_documented_and_the_run_goes_on(fault):
    assert inject(fault).wrong == ()


def test_the_table_of_faults_has_all_of_them():
    lines = TARGET.read_text().splitlines()
    rows = [line.split(" | ")[0].removeprefix("| ") for line in lines if line.startswith("| ")][2:]
    assert rows == [fault.name for fault in FAULTS]
    assert {fault.name for fault in FAULTS} >= QUICK


@pytest.mark.parametrize("moment", MOMENTS, ids=str)
def test_a_run_that_was_killed_ends_with_the_bits_of_one_that_was_not(moment):
    outcome = play(moment, "runs/killed")
    assert outcome.went_off == len(moment.bombs)
    assert outcome.differences == ()


@pytest.mark.slow
def test_a_campaign_of_kills():
    script = Path(__file__).with_name("campaign.py")
    done = subprocess.run([sys.executable, script, "--moments", "32"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_torchrun_starts_a_run_again_by_itself(world, number):
    """A worker killed is started again with the others and goes on; torchrun terminated has its workers save."""
    output = Path(f"runs/torchrun{number}")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "--max-restarts=2"]
    command = [*torchrun, "-m", "vmoe", "train", "images.yaml", f"output={output}", "schedule.epochs=40"]
    with Path("torchrun.log").open("w") as log:
        launcher = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=log, stderr=log)
    wait_for_lines(output / "metrics.jsonl", 8)
    workers = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    os.kill(int(workers[1]) if number == signal.SIGKILL else launcher.pid, number)
    status = launcher.wait(200)
    told = Path("torchrun.log").read_text()
    if number == signal.SIGKILL:
        assert status == 0, told
    else:
        assert status != 0
        assert "interrupted by SIGTERM" in told
        assert run("train", "images.yaml", f"output={output}", "schedule.epochs=40", "train.resume=auto").statuses == (
            0,
        )
    assert json.loads((output / "result.json").read_text())["steps"] == 40 * 5
    steps = [entry["step"] for entry in map(json.loads, (output / "metrics.jsonl").read_text().splitlines())]
    assert steps == sorted(steps)


def wait_for_lines(path: Path, count: int) -> None:
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        if path.exists() and len(path.read_text().splitlines()) >= count:
            return
        time.sleep(0.1)
    raise TimeoutError(path)
