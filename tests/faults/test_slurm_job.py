"""The SLURM job, with stand-ins for SLURM's commands and for torchrun."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

JOB = Path(__file__).resolve().parents[2] / "tools" / "train.sbatch"
COMMANDS = {
    "scontrol": 'echo "scontrol $*" >> calls; [ "$1" = show ] && echo node7',
    "srun": 'shift; exec "$@"',
    # A run that saves for a while once it is told to stop.
    "torchrun": """trap "sleep 0.3; echo saved >> calls; exit 75" TERM
echo "torchrun $*" >> calls
sleep "${LASTS:-30}" &
wait $!""",
}


@pytest.fixture
def job(tmp_path):
    for name, body in COMMANDS.items():
        path = tmp_path / name
        path.write_text(f"#!/usr/bin/env bash\n{body}\n")
        path.chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "node[7-8]", "SLURM_NNODES": "2", "SLURM_JOB_ID": "41", "SLURM_GPUS_PER_NODE": "4"}
    environment = os.environ | slurm | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}

    def start(**more):
        return subprocess.Popen(["bash", JOB, "a.yaml", "optimizer.lr=1"], cwd=tmp_path, env=environment | more)

    return start


def calls_of(folder: Path, *, until: str = "torchrun") -> list[str]:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        told = (folder / "calls").read_text() if (folder / "calls").exists() else ""
        if until in told:
            return told.splitlines()
        time.sleep(0.02)
    raise TimeoutError


def test_a_job_whose_time_is_up_saves_and_is_queued_again(job, tmp_path):
    running = job()
    launched = calls_of(tmp_path)[-1]
    assert "--nnodes=2 --nproc_per_node=4" in launched
    assert "node7:29500" in launched
    assert launched.endswith("train_imagenet.py a.yaml optimizer.lr=1")
    running.send_signal(signal.SIGTERM)
    assert running.wait(20) == 75
    assert calls_of(tmp_path)[-2:] == ["saved", "scontrol requeue 41"]


def test_a_job_that_ends_is_not_queued_again(job, tmp_path):
    assert job(LASTS="0").wait(20) == 0
    assert not any("requeue" in call for call in calls_of(tmp_path))
