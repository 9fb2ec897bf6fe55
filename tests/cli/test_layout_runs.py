"""Runs that go on from one layout of the model on processes to another, against one process."""

import json
import os
import shutil
import socket
from pathlib import Path

import pytest
import torch
from together import together
from torch.testing import assert_close
from world import CONFIG, make_images, make_world, vmoe

from vmoe.config import ConfigError, load_config

LAYOUTS = {
    "ddp": (),
    "experts": ("parallel.experts=2",),
    "fsdp": ("parallel.strategy=fsdp",),
    "fsdp and experts": ("parallel.strategy=fsdp", "parallel.experts=2"),
}
RUN = (
    *("train", "tiny.yaml", "moe.gate=routing_free", "data.val=odd", "schedule.epochs=2", "optimizer.clip_grad=0.1"),
    *("optimizer.eps=1e-3", "train.ema_decay=0.9", "train.probe_samples=5", "train.resume=auto"),
)


def free_ports(count):
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def run_legs(legs):
    """Commands, one after the other, each with a port of its own. A leg is (port, arguments)."""
    from vmoe.cli import main

    for port, arguments in legs:
        os.environ["MASTER_PORT"] = str(port)
        assert main(list(arguments)) == 0


def stored(folder):
    return torch.load(Path(folder, "checkpoints/last.pt"), weights_only=True)


def assert_same_run(folder, whole, steps):
    one, other = stored(folder), stored(whole)
    assert one["training"]["step"] == other["training"]["step"] == steps
    assert_close(one["weights"], other["weights"], atol=1e-5, rtol=1e-4)
    assert_close(one["ema"], other["ema"], atol=1e-5, rtol=1e-4)
    first, second = (each["training"]["optimizer"] for each in (one, other))
    assert first["groups"] == second["groups"]
    assert_close(first["state"], second["state"], atol=1e-5, rtol=1e-4)
    assert_close(one["training"]["balance"], other["training"]["balance"])
    assert one["training"]["train_flops"] == other["training"]["train_flops"]


def metrics(folder, kind):
    lines = Path(folder, "metrics.jsonl").read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if entry["kind"] == kind]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """One process trains six steps; one, of another run, the first of them."""
    folder = tmp_path_factory.mktemp("runs_in_layouts")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_world(folder)
        make_images(folder / "odd", ("dark", "light"), 5)
        Path("odd/light/0.png").unlink()  # nine: one of two processes has a batch more to evaluate than the other
        assert vmoe(*RUN, "output=whole").status == 0
        assert vmoe(*RUN, "output=begun", "schedule.max_steps=1").status == 0
        yield


@pytest.mark.parametrize(
    "layouts", [("experts", "fsdp and experts"), pytest.param(tuple(LAYOUTS), marks=pytest.mark.slow)], ids=" > ".join
)
def test_a_run_goes_on_from_layout_to_layout(world, layouts):
    """A step in each of them, from a step of one process, which then takes the rest."""
    chain = Path(f"chain of {len(layouts)}")
    shutil.copytree("begun", chain)
    run = (*RUN, f"output={chain}")
    legs = [
        (port, (*run, f"schedule.max_steps={step}", *LAYOUTS[layout]))
        for step, (port, layout) in enumerate(zip(free_ports(len(layouts)), layouts, strict=True), 2)
    ]
    together(2, Path("legs"), run_legs, legs)
    (chain / "routing_maps.npz").unlink()
    assert vmoe(*run).status == 0
    assert_same_run(chain, "whole", 6)
    assert (chain / "routing_maps.npz").exists()
    ends = {entry["step"]: entry for entry in metrics(chain, "evaluation")}
    for entry in metrics("whole", "evaluation"):
        assert ends[entry["step"]]["loss"] == pytest.approx(entry["loss"], rel=1e-4)
        assert ends[entry["step"]]["layers"] == entry["layers"]
    assert all(entry["changed"] for entry in metrics(chain, "evaluation")[1:]), "the probe is compared in each layout"


@pytest.mark.slow
@pytest.mark.parametrize("gate", ["topk", "self", "routing_free"])
def test_every_layout_loads_in_every_other_on_four_processes(world, gate):
    run = (*RUN, f"moe.gate={gate}", "schedule.max_steps=4")
    layouts = {
        "ddp": (),
        "experts 2": ("parallel.experts=2",),
        "experts 4": ("parallel.experts=4",),
        "fsdp": ("parallel.strategy=fsdp",),
        "fsdp and experts": ("parallel.strategy=fsdp", "parallel.experts=2"),
    }
    folder = Path(gate)
    assert vmoe(*run, f"output={folder}/whole").status == 0
    first = [
        (port, (*run, f"output={folder}/{name}", "schedule.max_steps=2", *overrides))
        for port, (name, overrides) in zip(free_ports(len(layouts)), layouts.items(), strict=True)
    ]
    together(4, Path("legs"), run_legs, first)
    for one in layouts:
        others = {f"{folder}/{one} to {other}": layouts[other] for other in layouts if other != one}
        for output in others:
            shutil.copytree(folder / one, output)
        second = [
            (port, (*run, f"output={output}", *overrides))
            for port, (output, overrides) in zip(free_ports(len(others)), others.items(), strict=True)
        ]
        together(4, Path("legs"), run_legs, second)
        for output in others:
            assert_same_run(output, folder / "whole", 4)


# --- configs ---------------------------------------------------------------------------------------------

EP2, FSDP = "parallel.experts=2", "parallel.strategy=fsdp"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (("parallel.experts=3",), r"parallel\.experts is 3 with moe\.num_experts 4; allowed: 1, 2, 4"),
        ((EP2, "moe.gate=soft"), r"with moe\.gate 'soft'; allowed: 1"),
        ((EP2, "moe.gate=dense"), r"with moe\.gate 'dense'; allowed: 1"),
        ((EP2, "train.compile=true"), r"train\.compile is true with parallel\.experts 2; allowed: false"),
        ((FSDP, "train.compile=true"), r"train\.compile is true with parallel\.strategy 'fsdp'"),
        ((FSDP, "train.precision=float16"), r"train\.precision is 'float16' with .* allowed: float32"),
        ((EP2, "optimizer.kind=lamb"), r"optimizer\.kind is 'lamb' with parallel\.experts 2; allowed: sgd"),
        (("parallel.strategy=tensor",), r"parallel\.strategy"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_does_not_go_together_is_refused(tmp_path, overrides, expected):
    path = tmp_path / "tiny.yaml"
    path.write_text(CONFIG)
    with pytest.raises(ConfigError, match=expected):
        load_config(path, list(overrides))
