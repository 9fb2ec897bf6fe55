"""The probe: how far decisions change from evaluation to evaluation; and what experts serve, in the log."""

import json
from itertools import pairwise

import pytest
import torch
from memory import MemoryLoader, dark_or_bright, tiny_config, tiny_run
from torch import nn

from vmoe.moe import record
from vmoe.train import loop, step
from vmoe.train.checkpoint import read_checkpoint
from vmoe.train.loop import fit
from vmoe.train.probe import Probe, changed_tokens, pack


def entries(parts, kind):
    lines = map(json.loads, parts.folder.metrics.read_text().splitlines())
    return [entry for entry in lines if entry["kind"] == kind]


@pytest.mark.parametrize("num_experts", [1, 3, 8, 9, 64])
def test_changed_tokens_by_the_definition(num_experts):
    """A token counts once, however many of its experts are others."""
    generator = torch.Generator().manual_seed(num_experts)
    before, now = torch.rand(2, 50, num_experts, generator=generator) < 1 / num_experts
    expected = sum(before[t].tolist() != now[t].tolist() for t in range(50)) / 50
    assert changed_tokens({"a": pack(before)}, {"a": pack(now)}) == {"a": expected}
    assert changed_tokens({"a": pack(now)}, {"a": pack(now)}) == {"a": 0}


def test_what_does_not_compare_is_absent():
    one, longer = pack(torch.ones(4, 3, dtype=torch.bool)), pack(torch.ones(5, 3, dtype=torch.bool))
    assert changed_tokens({}, {"a": one}) == {}
    assert changed_tokens({"a": longer}, {"a": one}) == {}
    assert changed_tokens({"a": one[:0]}, {"a": one[:0]}) == {}


def test_it_reads_samples_evenly_spaced_and_routes_them_as_an_evaluation_does(tmp_path):
    state, parts = tiny_run(tiny_config("moe.gate=self", "train.probe_samples=12"), tmp_path)
    images, labels = dark_or_bright()
    probe = parts.probe
    assert torch.equal(probe.inputs, images[::4])
    assert torch.equal(probe.targets, labels[::4])
    decisions = probe.route(state.model.train(), parts.task, parts.processes.device, parts.precision)
    assert state.model.training
    with torch.no_grad(), record(state.model.eval()) as routings:
        state.model(parts.task.prepare(images[::4]))
    assert {name: pack(routing.active).tolist() for name, routing in routings.items()} == {
        name: tensor.tolist() for name, tensor in decisions.items()
    }


def test_there_is_none_where_nothing_is_routed_or_asked_for(tmp_path):
    assert tiny_run(tiny_config("moe.gate=dense"), tmp_path)[1].probe is None
    assert tiny_run(tiny_config("train.probe_samples=0"), tmp_path)[1].probe is None


def test_changes_are_logged_from_the_second_evaluation_on_and_over_an_interruption(tmp_path, monkeypatch):
    """What a resumed run compares with is what the interrupted one had decided."""
    overrides = ("moe.gate=self", "schedule.epochs=4", "train.probe_samples=12")
    decided = []
    monkeypatch.setattr(loop, "changed_tokens", lambda *pair: decided.append(pair) or changed_tokens(*pair))
    whole, parts = tiny_run(tiny_config(*overrides), tmp_path / "whole")
    evaluation = fit(whole, parts)
    found = [entry["changed"] for entry in entries(parts, "evaluation")]
    assert found[0] == {}
    assert [list(one) for one in found[1:]] == [["blocks.1.mlp"]] * 3
    assert any(one["blocks.1.mlp"] > 0 for one in found[1:])
    assert evaluation.changed == found[-1]
    for before, now in pairwise(decided):
        assert torch.equal(before[1]["blocks.1.mlp"], now[0]["blocks.1.mlp"])

    first, parts = tiny_run(tiny_config(*overrides, "schedule.max_steps=15"), tmp_path / "first")  # within an epoch
    fit(first, parts)
    second, parts = tiny_run(tiny_config(*overrides), tmp_path / "second")
    second.load(read_checkpoint(tmp_path / "first" / "checkpoints" / "last.pt"), parts.layout)
    fit(second, parts)
    assert [entry["changed"] for entry in entries(parts, "evaluation")][-1] == found[-1]


def experts_served(monkeypatch, config, folder):
    """Train; returns the entries, and what every micro-batch routed, by its step."""
    state, parts = tiny_run(config, folder)
    routed = []

    def forward(network, inputs):
        logits = network(inputs)
        if network.training:
            routed.append((state.step, routings["blocks.1.mlp"].active.sum(0), routings["blocks.1.mlp"].num_tokens))
        return logits

    routings = None

    def keep(model: nn.Module):
        nonlocal routings
        context = record(model)

        class Kept:
            def __enter__(self):
                nonlocal routings
                routings = context.__enter__()
                return routings

            def __exit__(self, *error):
                return context.__exit__(*error)

        return Kept()

    monkeypatch.setattr(step, "record", keep)
    monkeypatch.setattr(parts.task, "forward", forward)
    fit(state, parts)
    return entries(parts, "train"), routed


@pytest.mark.parametrize(("every", "log_every"), [(1, 4), (3, 4), (1, 1)])
def test_a_line_says_what_experts_served_since_the_line_before(every, log_every, tmp_path, monkeypatch):
    config = tiny_config(
        "moe.gate=routing_free",
        "train.accumulate=2",
        f"train.log_every={log_every}",
        f"train.routing_every={every}",
        "schedule.epochs=2",
    )
    lines, routed = experts_served(monkeypatch, config, tmp_path)
    assert len(lines) == 12 // log_every
    before = 0
    for line in lines:
        counted = [one for one in routed if before <= one[0] < line["step"] and (one[0] + 1) % every == 0]
        before = line["step"]
        if not counted:
            assert (line["layers"], line["routing"]) == ({}, None)
            continue
        layer = line["layers"]["blocks.1.mlp"]
        assert layer["pairs"] == sum(pairs for _, pairs, _ in counted).tolist()
        assert layer["tokens"] == sum(tokens for _, _, tokens in counted)
        assert line["routing"]["density"] == pytest.approx(sum(layer["pairs"]) / (4 * layer["tokens"]))


def test_nothing_is_counted_where_nobody_asks(tmp_path):
    state, parts = tiny_run(tiny_config("train.routing_every=null", "train.probe_samples=0"), tmp_path)
    fit(state, parts)
    for line in entries(parts, "train"):
        assert (line["routing"], line["layers"]) == (None, {})
    assert [line["changed"] for line in entries(parts, "evaluation")] == [{}, {}]


def test_a_sample_of_few_samples_is_all_of_them():
    images, labels = dark_or_bright(6)
    probe = Probe.read(MemoryLoader(images, labels, 4, shuffle=False), 256, batch_size=4)
    assert torch.equal(probe.inputs, images)
