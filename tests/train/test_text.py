"""Language models by the same loop: they learn, every token counts once, and a run goes on where it stopped."""

import json
import math
from functools import partial

import pytest
import torch
from memory import ALONE, tiny_text_config, tiny_text_run
from torch.utils.flop_counter import FlopCounterMode

from vmoe.data.tokens import IGNORE
from vmoe.moe import mean_figures, record
from vmoe.train.checkpoint import read_checkpoint
from vmoe.train.evaluate import evaluate
from vmoe.train.loop import fit
from vmoe.train.meter import Meter
from vmoe.train.step import micro_step
from vmoe.train.text import Perplexity, TextSize
from vmoe.train.utilisation import model_flops_utilisation

SLOW = [pytest.param(gate, marks=pytest.mark.slow) for gate in ("dense", "random", "aoe", "relu")]
GATES = ("topk", "self", "routing_free", *SLOW)


@pytest.mark.parametrize("gate", GATES)
def test_every_gate_learns_which_letter_follows(gate, tmp_path):
    config = tiny_text_config(tmp_path, f"moe.gate={gate}", "schedule.epochs=6")
    state, parts = tiny_text_run(config, tmp_path / "run")
    evaluation = fit(state, parts)
    figures = evaluation.scores.figures
    assert figures["perplexity"] == pytest.approx(math.exp(figures["loss"]))
    assert figures["perplexity"] < 20  # of 257 tokens at the start
    assert figures["eval_tokens"] == evaluation.scores.units == parts.val_loader.sidecar.tokens - 1
    assert set(evaluation.routing) == set(parts.cost.layers)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    state, parts = tiny_text_run(tiny_text_config(folder, "schedule.epochs=3"), folder / "run")
    fit(state, parts)
    return state.model.eval(), parts, folder


def score(trained, *overrides):
    """An evaluation of the trained model with other keys."""
    model, parts, folder = trained
    _, other = tiny_text_run(tiny_text_config(folder, *overrides), folder / "other")
    return evaluate(model, other.val_loader, parts.task, ALONE, torch.float32)


def test_the_loss_is_that_of_a_plain_loop_over_the_text(trained):
    model, parts, folder = trained
    tokens = torch.from_file(str(folder / "train.tokens"), dtype=torch.uint16, size=parts.val_loader.sidecar.tokens)
    tokens = tokens.long()
    losses = []
    for begin in range(0, len(tokens) - 1, 16):
        window = tokens[begin : begin + 17]
        with torch.no_grad():
            log_probability = model(input_ids=window[None, :-1]).logits[0].log_softmax(-1)
        losses += [-float(log_probability[i, following]) for i, following in enumerate(window[1:])]
    assert len(losses) == len(tokens) - 1
    figures = score(trained).scores.figures
    assert figures["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-6)
    text = "".join((folder / "text" / name).read_text() for name in ("a.txt", "b.txt"))
    assert figures["bits_per_byte"] == pytest.approx(sum(losses) / math.log(2) / len(text.encode()), rel=1e-6)
    assert figures["word_perplexity"] == pytest.approx(math.exp(sum(losses) / len(text.split())), rel=1e-5)


@pytest.mark.parametrize("size", [1, 2, 50])
def test_scores_and_routing_do_not_depend_on_the_batch(trained, size):
    one, other = score(trained), score(trained, f"data.eval_batch_size={size}")
    assert one.scores.figures["loss"] == pytest.approx(other.scores.figures["loss"], rel=1e-6)
    assert one.routing == other.routing


def test_windows_that_overlap_count_the_same_tokens_with_more_before_each(trained):
    apart, sliding = score(trained), score(trained, "data.eval_stride=4")
    assert sliding.scores.units == apart.scores.units
    assert sliding.scores.figures["loss"] < apart.scores.figures["loss"]
    (layer,) = sliding.routing.values()
    assert sum(layer.experts_per_token) == sliding.scores.units


def test_information_is_between_the_expert_and_the_token_it_serves(trained):
    """By its definition, over the pairs of every token that is read to predict another."""
    model, parts, _ = trained
    joint = torch.zeros(257, 4, dtype=torch.float64)
    with record(model) as routings, torch.no_grad():
        for inputs, _ in parts.val_loader.epoch(0):
            model(input_ids=inputs)
            (routing,) = routings.values()
            joint.index_add_(0, inputs.flatten(), routing.active.double())
    joint /= joint.sum()
    independent = joint.sum(0) * joint.sum(1, keepdim=True)
    expected = float((joint * (joint / independent).log2()).nan_to_num().sum())
    found = mean_figures(score(trained).routing)
    assert found["label_information"] == pytest.approx(expected, rel=1e-9)
    assert found["label_information"] > 0.1


@pytest.mark.parametrize("gate", ["topk", "routing_free"])
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(gate, tmp_path):
    overrides = (f"moe.gate={gate}", "schedule.epochs=2", "model.dropout=0.1", "train.accumulate=2")
    whole, parts = tiny_text_run(tiny_text_config(tmp_path, *overrides), tmp_path / "whole")
    fit(whole, parts)
    stop = parts.steps_per_epoch + parts.steps_per_epoch // 2
    first, parts = tiny_text_run(
        tiny_text_config(tmp_path, *overrides, f"schedule.max_steps={stop}"), tmp_path / "first"
    )
    fit(first, parts)
    second, parts = tiny_text_run(tiny_text_config(tmp_path, *overrides), tmp_path / "second")
    second.load(read_checkpoint(tmp_path / "first/checkpoints/last.pt"), parts.layout)
    assert second.step == stop
    fit(second, parts)
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name]), name
    assert whole.train_flops == second.train_flops


@pytest.mark.parametrize(
    ("override", "tolerance"),
    [("train.compile=true", 1e-5), ("model.grad_checkpointing=true", 1e-5), ("train.precision=bfloat16", 2e-2)],
)
def test_how_a_run_is_computed_changes_no_learning(override, tolerance, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    losses = []
    for overrides in ((), (override,)):
        config = tiny_text_config(tmp_path, "schedule.max_steps=4", *overrides)
        state, parts = tiny_text_run(config, tmp_path / f"run{len(overrides)}")
        fit(state, parts)
        losses.append([entry["loss"] for entry in read_metrics(parts) if entry["kind"] == "train"])
    assert losses[1] == pytest.approx(losses[0], rel=tolerance)


def test_micro_batches_add_up_to_the_gradient_of_the_whole_batch(tmp_path):
    gradients = []
    for accumulate in (1, 4):
        state, parts = tiny_text_run(
            tiny_text_config(tmp_path, "moe.gate=self", f"train.accumulate={accumulate}"), tmp_path / "run"
        )
        batches = parts.train_loader.epoch(0)
        for _ in range(accumulate):
            micro_step(state, parts, state.model, next(batches), Meter(parts, state.model))
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in state.model.parameters()]))
    assert (gradients[1] - gradients[0]).norm() < 1e-5 * gradients[0].norm()


def test_the_moving_average_takes_tied_embeddings_once(tmp_path):
    state, _ = tiny_text_run(tiny_text_config(tmp_path, "train.ema_decay=0.75"), tmp_path / "run")
    average = state.ema.module.lm_head.weight
    assert average is state.ema.module.transformer.wte.weight
    before = average.detach().clone()
    state.model.lm_head.weight.data += 1
    state.ema.update(state.model, step=2)
    assert torch.allclose(average, before + 0.25)


def test_flops_are_those_torch_counts_per_token(tmp_path):
    state, parts = tiny_text_run(tiny_text_config(tmp_path), tmp_path / "run")
    tokens = torch.randint(257, (3, 16))
    with record(state.model) as routings, FlopCounterMode(display=False) as counter:
        state.model.eval()(input_ids=tokens, use_cache=False)
    density = {name: float(routing.active.float().mean()) for name, routing in routings.items()}
    assert parts.cost.flops_per_unit(density) * 48 == pytest.approx(counter.get_total_flops(), rel=1e-9)


def test_the_metrics_speak_of_tokens(trained):
    _, parts, _ = trained
    entries = read_metrics(parts)
    training = [entry for entry in entries if entry["kind"] == "train"]
    assert all(entry["tokens_per_second"] > 0 for entry in training)
    assert {"perplexity", "bits_per_byte", "loss", "routing"} <= set(entries[-1])


def read_metrics(parts):
    return [json.loads(line) for line in parts.folder.metrics.read_text().splitlines()]


def test_ignored_targets_do_not_count():
    scorer = Perplexity(torch.device("cpu"), TextSize(text_bytes=4, words=1))
    logits = torch.tensor([[[0.0, 0.0], [100.0, 0.0]]])
    scorer.update(logits, torch.tensor([[1, IGNORE]]))
    scores = scorer.compute()
    assert scores.units == 1
    assert scores.figures["perplexity"] == pytest.approx(2)
    assert scores.figures["bits_per_byte"] == pytest.approx(1 / 4)


def test_utilisation_is_what_was_done_over_what_the_devices_could(tmp_path):
    stated = tiny_text_config(tmp_path, "train.peak_tflops=2")
    assert model_flops_utilisation(5e11, stated, ALONE) == pytest.approx(0.25)
    assert model_flops_utilisation(5e11, tiny_text_config(tmp_path), ALONE) is None  # nobody says what a CPU can do
