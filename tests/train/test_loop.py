"""The training loop: it learns, adds up, and goes on where it stopped."""

import json
from functools import partial

import pytest
import torch
from memory import tiny_config, tiny_run

from vmoe.moe import Balance
from vmoe.train import loop
from vmoe.train.checkpoint import read_checkpoint
from vmoe.train.loop import evaluate_now, fit
from vmoe.train.meter import Meter
from vmoe.train.step import compute_gradients, micro_step, update

GATES = ("dense", "topk", "self", "random", "aoe", "relu", "routing_free", "expert_choice", "soft")


def weights_of(state):
    return {name: tensor.clone() for name, tensor in state.model.state_dict().items()}


@pytest.mark.parametrize("gate", GATES)
def test_every_gate_learns_dark_from_bright(gate, tmp_path):
    state, parts = tiny_run(tiny_config(f"moe.gate={gate}", "schedule.epochs=8"), tmp_path)
    evaluation = fit(state, parts)
    losses = [entry["loss"] for entry in read_metrics(parts, "train")]
    assert evaluation.scores.figures["top1"] == 100
    assert evaluation.scores.figures["eval_samples"] == evaluation.scores.units == 48
    assert losses[-1] < 0.8 * losses[0]
    assert set(evaluation.routing) == set(parts.cost.layers)


@pytest.mark.parametrize("steps", [6, 8], ids=["at an epoch's end", "within an epoch"])
@pytest.mark.parametrize("gate", ["{kind: topk, bias_rate: 0.01, jitter: 0.1}", "relu", "routing_free"])
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(gate, steps, tmp_path):
    overrides = (f"moe.gate={gate}", "schedule.epochs=3", "train.ema_decay=0.9", "augment.mixup=0.8")
    whole, parts = tiny_run(tiny_config(*overrides), tmp_path / "whole")
    assert parts.steps_per_epoch == 6
    fit(whole, parts)

    first, parts = tiny_run(tiny_config(*overrides, f"schedule.max_steps={steps}"), tmp_path / "first")
    fit(first, parts)
    assert first.step == steps
    second, parts = tiny_run(tiny_config(*overrides), tmp_path / "second")
    second.load(read_checkpoint(tmp_path / "first" / "checkpoints" / "last.pt"), parts.layout)
    fit(second, parts)

    for name, tensor in weights_of(whole).items():
        assert torch.equal(tensor, second.model.state_dict()[name]), name
    for name, tensor in whole.ema.module.state_dict().items():
        assert torch.equal(tensor, second.ema.module.state_dict()[name]), name
    for name, tensor in whole.balance.state_dict().items():
        assert torch.equal(tensor, second.balance.state_dict()[name]), name
    assert whole.train_flops == second.train_flops


def test_a_run_that_dies_in_an_evaluation_goes_on_with_its_last_step(tmp_path, monkeypatch):
    overrides = ("schedule.epochs=3", "moe.gate=routing_free")
    whole, parts = tiny_run(tiny_config(*overrides), tmp_path / "whole")
    fit(whole, parts)

    def die(state, parts):
        if state.step == 12:
            raise KeyboardInterrupt
        return evaluate_now(state, parts)

    first, parts = tiny_run(tiny_config(*overrides), tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(loop, "evaluate_now", die)
        with pytest.raises(KeyboardInterrupt):
            fit(first, parts)
    second, parts = tiny_run(tiny_config(*overrides), tmp_path / "run")
    second.load(read_checkpoint(parts.folder.checkpoints.last), parts.layout)
    assert (second.step, second.evaluated) == (12, 6)
    parts.folder.start("", parts.processes, step=second.step, evaluated=second.evaluated)
    fit(second, parts)
    assert [entry["step"] for entry in read_metrics(parts, "evaluation")] == [6, 12, 18]
    assert [entry["step"] for entry in read_metrics(parts, "train")] == list(range(1, 19))
    for name, tensor in weights_of(whole).items():
        assert torch.equal(tensor, second.model.state_dict()[name]), name


def test_micro_batches_add_up_to_the_gradient_of_the_whole_batch(tmp_path):
    gradients = []
    for accumulate in (1, 2, 4):
        config = tiny_config("moe.gate=self", f"train.accumulate={accumulate}")
        state, parts = tiny_run(config, tmp_path)
        images, labels = parts.train_loader.images[:8], parts.train_loader.labels[:8]
        for chunk in range(accumulate):
            part = slice(chunk * 8 // accumulate, (chunk + 1) * 8 // accumulate)
            micro_step(state, parts, state.model, (images[part], labels[part]), Meter(parts, state.model))
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in state.model.parameters()]))
    for other in gradients[1:]:
        assert (other - gradients[0]).norm() < 1e-5 * gradients[0].norm()


def test_clipping_bounds_the_gradient_norm(tmp_path):
    state, parts = tiny_run(tiny_config("optimizer.clip_grad=0.01", "optimizer.kind=sgd"), tmp_path)
    batch = parts.train_loader.images[:8], parts.train_loader.labels[:8]
    found = compute_gradients(state, parts, state.model, [batch], Meter(parts, state.model))
    norms = []
    state.optimizer.register_step_pre_hook(
        lambda optimizer, *_: norms.append(
            torch.cat([p.grad.flatten() for group in optimizer.param_groups for p in group["params"]]).norm()
        )
    )
    update(state, parts, found.norm)
    assert float(norms[0]) == pytest.approx(0.01, rel=1e-4)


def test_the_controller_steps_once_an_optimizer_step(tmp_path):
    config = tiny_config("moe.gate=routing_free", "train.accumulate=4", "moe.gate.target_density=0.01")
    state, parts = tiny_run(config, tmp_path)
    fit(state, parts)
    assert state.step == 12
    assert float(state.balance.coefficient) == pytest.approx(1e-10 * 1.02**12)  # always denser than the target


def test_flops_spent_are_the_fixed_part_and_every_active_pair(tmp_path):
    state, parts = tiny_run(tiny_config("moe.gate=topk", "schedule.epochs=1"), tmp_path)
    fit(state, parts)
    images, tokens, k = 48, 5, 2  # 8² pixels in 4² patches, and the class token
    (layer,) = parts.cost.layers.values()
    on_pairs = 3 * images * tokens * k * layer.flops_per_pair
    assert state.train_flops == images * parts.cost.fixed_train_flops + on_pairs


def test_best_checkpoint_is_of_the_best_evaluation_and_last_of_the_last(tmp_path):
    state, parts = tiny_run(tiny_config("schedule.epochs=4"), tmp_path)
    fit(state, parts)
    evaluations = {entry["step"]: entry["top1"] for entry in read_metrics(parts, "evaluation")}
    best = read_checkpoint(parts.folder.checkpoints.best)["training"]
    assert best["best"] == max(evaluations.values())
    assert evaluations[best["step"]] == max(evaluations.values())
    assert read_checkpoint(parts.folder.checkpoints.last)["training"]["step"] == 4 * parts.steps_per_epoch


def test_the_moving_average_is_evaluated_where_the_config_says_so(tmp_path):
    config = tiny_config("train.ema_decay=0.9999999", "train.evaluate=ema", "schedule.epochs=8")
    state, parts = tiny_run(config, tmp_path)
    untrained = weights_of(state)["blocks.0.mlp.fc1.weight"]
    evaluation = fit(state, parts)
    assert torch.allclose(state.ema.module.state_dict()["blocks.0.mlp.fc1.weight"], untrained, atol=1e-5)
    assert evaluation.scores.figures["loss"] > 0.5  # an average that has hardly moved has not learned


class Diverging(Balance):
    """A loss that is no number at some steps."""

    def __init__(self, state, steps):
        super().__init__()
        self.state, self.steps = state, steps

    def forward(self, routings):
        return float("nan") if self.state.step in self.steps else 0.0


def test_steps_that_are_not_finite_are_left_out(tmp_path, capsys):
    """The weights are those of a run whose learning rate was 0 in these steps, and whose optimizer never saw them."""
    state, parts = tiny_run(tiny_config("schedule.epochs=2", "train.max_nonfinite=2"), tmp_path)
    state.balance = Diverging(state, {4, 5, 8})
    before = {}
    state.optimizer.register_step_pre_hook(lambda *_: before.update({state.step: weights_of(state)}))
    fit(state, parts)
    assert sorted(before) == [0, 1, 2, 3, 6, 7, 9, 10, 11]
    assert all(torch.isfinite(tensor).all() for tensor in weights_of(state).values())
    assert state.optimizer.state[next(state.model.parameters())]["step"] == 9
    assert [entry["left_out"] for entry in read_metrics(parts, "train")] == [0, 0, 0, 0, 1, 1, 0, 0, 1, 0, 0, 0]
    assert read_metrics(parts, "train")[4]["loss"] is None
    assert "step 6: the loss is nan" in (told := capsys.readouterr().err)
    assert "no update (2 of at most 2 in a row)" in told


def test_too_many_of_them_in_a_row_stop_the_run_which_keeps_its_checkpoints(tmp_path):
    state, parts = tiny_run(tiny_config("schedule.epochs=3", "train.max_nonfinite=2"), tmp_path)
    state.balance = Diverging(state, range(parts.steps_per_epoch, 100))
    with pytest.raises(FloatingPointError, match=r"step 9: .*3 steps in a row .* the last checkpoint is .*last.pt"):
        fit(state, parts)
    assert read_checkpoint(parts.folder.checkpoints.last)["training"]["step"] == parts.steps_per_epoch


def test_a_spike_sends_the_run_back_and_on_with_later_data(tmp_path, capsys):
    overrides = ("schedule.epochs=6", "train.spike_factor=3", "train.ema_decay=0.9")
    state, parts = tiny_run(tiny_config(*overrides), tmp_path)
    spikes = {26: 1}  # at that position of the data, once it is read

    class Spiking(Balance):
        def forward(self, routings):
            return 50.0 if spikes.get(state.position) else 0.0

    state.balance = Spiking()
    read, epoch = [], parts.train_loader.epoch

    def reading(number, first=0):
        for place, batch in enumerate(epoch(number, first), number * parts.steps_per_epoch + first):
            read.append(place)
            yield batch

    parts.train_loader.epoch = reading
    fit(state, parts)
    assert state.step == parts.last_step == 36
    assert (state.returns, state.left_out_data) == (1, 3)
    # Steps 24 and 25 were taken, and taken back; that of place 26 never was; one batch ahead had been read.
    assert read == [*range(24), 24, 25, 26, 27, *range(27, 39)]
    assert [entry["step"] for entry in read_metrics(parts, "train")] == list(range(1, 37))
    assert [entry["step"] for entry in read_metrics(parts, "evaluation")] == [6, 12, 18, 24, 30, 36]
    assert "back to" in capsys.readouterr().err


def test_a_run_goes_back_so_often_and_no_more(tmp_path):
    state, parts = tiny_run(tiny_config("schedule.epochs=9", "train.spike_factor=2", "train.max_returns=2"), tmp_path)

    class Spiking(Balance):
        def forward(self, routings):
            return 50.0 if state.step == 30 else 0.0

    state.balance = Spiking()
    with pytest.raises(FloatingPointError, match=r"step 31: .*gone back 2 times already"):
        fit(state, parts)
    assert state.returns == 2


def test_evaluations_come_as_often_as_the_config_says(tmp_path):
    by_epochs, parts = tiny_run(tiny_config("schedule.epochs=4", "train.eval_every=3"), tmp_path / "epochs")
    fit(by_epochs, parts)
    assert [entry["step"] for entry in read_metrics(parts, "evaluation")] == [18, 24]
    overrides = ("schedule.steps=14", "schedule.warmup_steps=2", "train.eval_every_steps=4")
    by_steps, parts = tiny_run(tiny_config(*overrides), tmp_path / "steps")
    fit(by_steps, parts)
    assert [entry["step"] for entry in read_metrics(parts, "evaluation")] == [4, 8, 12, 14]
    assert [entry["epoch"] for entry in read_metrics(parts, "evaluation")] == [4 / 6, 8 / 6, 2, 14 / 6]


def test_a_compiled_run_learns_the_same(tmp_path, monkeypatch):
    """By the compiler's front end alone; what its kernels round is another matter."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    losses = {}
    for compiled in ("false", "true"):
        state, parts = tiny_run(tiny_config(f"train.compile={compiled}", "schedule.epochs=1"), tmp_path / compiled)
        fit(state, parts)
        losses[compiled] = [entry["loss"] for entry in read_metrics(parts, "train")]
        assert not any("_orig_mod" in name for name in read_checkpoint(parts.folder.checkpoints.last)["weights"])
    assert losses["true"] == pytest.approx(losses["false"], rel=1e-5)


def read_metrics(parts, kind):
    entries = map(json.loads, parts.folder.metrics.read_text().splitlines())
    return [entry for entry in entries if entry["kind"] == kind]
