"""TensorBoard and Weights & Biases get what metrics.jsonl gets."""

import json
import sys
from types import SimpleNamespace

import pytest
from memory import tiny_config, tiny_run

from vmoe.config import ConfigError
from vmoe.train import sinks
from vmoe.train.loop import fit
from vmoe.train.sinks import check_sinks, open_sinks, scalars

ENTRY = {
    "kind": "train",
    "step": 4,
    "epoch": 0.5,
    "loss": 2,
    "routing": {"entropy": 0.75, "label_information": None},
    "layers": {"blocks.1.mlp": {"pairs": [1, 3], "tokens": 2}},
    "name": "text",
}


def test_names_and_numbers_of_an_entry():
    assert dict(scalars(ENTRY)) == {
        "train/epoch": 0.5,
        "train/loss": 2.0,
        "train/routing/entropy": 0.75,
        "train/layers/blocks.1.mlp/tokens": 2.0,
    }


def train(folder, *overrides, epochs):
    """Train to the end of that epoch, from the checkpoint in the folder if there is one; returns the entries."""
    config = tiny_config(f"output={folder}", "schedule.epochs=3", f"schedule.max_steps={6 * epochs}", *overrides)
    state, parts = tiny_run(config, folder)
    if parts.folder.checkpoints.last.exists():
        from vmoe.train.checkpoint import read_checkpoint

        state.load(read_checkpoint(parts.folder.checkpoints.last), parts.layout)
    parts.folder.start("", parts.processes, step=state.step, evaluated=state.evaluated)
    with parts.folder.logging_to(open_sinks(config, folder, step=state.step)):
        fit(state, parts)
    return [json.loads(line) for line in parts.folder.metrics.read_text().splitlines()]


def test_tensorboard_holds_what_the_metrics_hold_also_of_a_run_that_goes_on(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(tmp_path / "run", "train.tensorboard=true", epochs=2)
    entries = train(tmp_path / "run", "train.tensorboard=true", epochs=3)
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    expected: dict[str, dict[int, float]] = {}
    for entry in entries:
        for name, value in scalars(entry):
            expected.setdefault(name, {})[entry["step"]] = value
    assert {"train/loss", "train/routing/entropy", "evaluation/top1"} <= set(expected)
    assert set(events.Tags()["scalars"]) == set(expected)
    for name, values in expected.items():
        found = {event.step: event.value for event in events.Scalars(name)}
        assert found == pytest.approx(values, rel=1e-6), name


class Wandb:
    """What is used of the package: runs that remember what they are told."""

    __spec__ = "installed"

    def __init__(self):
        self.runs = []

    def init(self, **settings):
        run = SimpleNamespace(settings=settings, logged=[], finished=False)
        run.log = lambda values, step: run.logged.append((step, values))
        run.finish = lambda: setattr(run, "finished", True)
        self.runs.append(run)
        return run


def test_weights_and_biases_gets_every_entry_and_knows_a_run_that_goes_on(tmp_path, monkeypatch):
    package = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", package)
    train(tmp_path / "run", "train.wandb=experts", epochs=1)
    entries = train(tmp_path / "run", "train.wandb=experts", epochs=2)
    first, second = package.runs
    assert first.settings["project"] == "experts"
    assert first.settings["name"] == "run"
    assert first.settings["config"]["moe"]["num_experts"] == 4
    assert first.settings["id"] == second.settings["id"]
    assert first.settings["resume"] == "allow"
    assert first.finished
    assert second.finished
    assert first.logged + second.logged == [(entry["step"], dict(scalars(entry))) for entry in entries]


@pytest.mark.parametrize(("key", "value"), [("tensorboard", "true"), ("wandb", "experts")])
def test_a_package_that_is_not_installed_is_named_before_anything_starts(key, value, monkeypatch, tmp_path):
    monkeypatch.setattr(sinks, "find_spec", lambda package: None)
    check_sinks(tiny_config())
    with pytest.raises(
        ConfigError, match=rf"train.{key} is .*, and {key} is not installed: pip install 'vmoe\[{key}\]'"
    ):
        tiny_run(tiny_config(f"train.{key}={value}"), tmp_path)
