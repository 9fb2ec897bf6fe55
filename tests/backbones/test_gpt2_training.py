"""What trains a GPT-2 with MoE layers: checkpointing, copies, moving averages, several processes, the compiler."""

import copy

import pytest
import torch
from hosts import CAUSAL_GATES, tiny_gpt2, train_step
from timm.utils import ModelEmaV3
from torch._dynamo import config as dynamo_config
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

import vmoe
from vmoe.backbones import gpt2
from vmoe.moe import MoESpec

TOKENS = torch.randint(97, (3, 17), generator=torch.Generator().manual_seed(0))
INPUTS, LABELS = TOKENS[:, :-1], TOKENS[:, 1:]

gates = pytest.mark.parametrize("gate", CAUSAL_GATES.values(), ids=CAUSAL_GATES)


def moe_gpt2(gate, **kwargs):
    return gpt2.add_moe(tiny_gpt2(**kwargs), MoESpec(gate=gate, layers="all"))


@gates
def test_gradient_checkpointing_changes_neither_loss_nor_gradients_nor_counts(gate):
    model = moe_gpt2(gate, dropout=0.1)
    expected = train_step(model, INPUTS, LABELS)
    gpt2.enable_checkpointing(model)
    calls = []
    model.transformer.h[1].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    assert_close(train_step(model, INPUTS, LABELS)._asdict(), expected._asdict(), equal_nan=True)
    assert len(calls) == 2  # it was computed again


@gates
def test_copies_after_a_forward(gate):
    model = moe_gpt2(gate).eval()
    gpt2.enable_checkpointing(model)
    expected = model(INPUTS).logits
    copied = copy.deepcopy(model)
    assert copied(INPUTS).logits.equal(expected)
    assert copied.no_weight_decay() == model.no_weight_decay()
    assert copied.lm_head.weight is copied.transformer.wte.weight
    assert not {p.data_ptr() for p in copied.parameters()} & {p.data_ptr() for p in model.parameters()}


@gates
def test_state_dicts_go_round(gate):
    first, second = moe_gpt2(gate, seed=0, bias=False).eval(), moe_gpt2(gate, seed=1, bias=False).eval()
    assert not second(INPUTS).logits.equal(first(INPUTS).logits)
    second.load_state_dict(first.state_dict(), strict=True)
    assert second(INPUTS).logits.equal(first(INPUTS).logits)


@gates
def test_a_moving_average_follows_the_model(gate):
    """decay ½ from w₀ to w₁ gives their mean; integers are copied.

    Over parameters and not over the state dict, where tied embeddings stand twice and would be averaged twice.
    """
    model = moe_gpt2(gate)
    ema = ModelEmaV3(model, decay=0.5, exclude_buffers=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    ema.update(model)
    for name, value in ema.module.state_dict().items():
        assert_close(value, before[name] + 0.5 if value.is_floating_point() else before[name])
    with vmoe.record(ema.module) as routings:
        assert ema.module.eval()(INPUTS).logits.isfinite().all()
    assert len(routings) == 2


@pytest.fixture
def one_process():
    """A process group of this process alone."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@gates
def test_data_parallel_gradients_are_the_models(gate, one_process):
    """Every parameter that is trained takes part in every step, or the wrapper would raise."""
    model = moe_gpt2(gate)
    expected = train_step(model, INPUTS, LABELS)
    parallel = DistributedDataParallel(model)
    for _ in range(2):
        found = train_step(parallel, INPUTS, LABELS)
    assert_close({name.removeprefix("module."): g for name, g in found.gradients.items()}, expected.gradients)
    assert_close(found.loss, expected.loss)


def test_a_layer_survives_autocast():
    model = moe_gpt2(CAUSAL_GATES["topk"])
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(INPUTS).logits
    torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), LABELS.flatten()).backward()
    assert logits.dtype == torch.bfloat16
    assert all(p.grad.isfinite().all() for p in model.parameters())


WHOLE = ["topk"]  # the others take as long, and stand in the slow set


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in WHOLE else [pytest.mark.slow]) for name in CAUSAL_GATES]
)
def test_the_whole_model_is_one_graph_and_is_recorded(name):
    model = moe_gpt2(CAUSAL_GATES[name]).eval()
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with (
        dynamo_config.patch(capture_dynamic_output_shape_ops=name in ("relu", "routing_free")),
        vmoe.record(model) as routings,
    ):
        logits = compiled(INPUTS, use_cache=False).logits
        found = dict(routings)
        expected = model(INPUTS, use_cache=False).logits
        assert_close(logits, expected)
        assert {layer: routing.active.tolist() for layer, routing in found.items()} == {
            layer: routing.active.tolist() for layer, routing in routings.items()
        }
    assert len(found) == 2
    logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
