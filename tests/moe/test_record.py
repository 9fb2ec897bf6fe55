"""Recording: routings come out of a scope, and nothing stays in the model."""

import copy
import pickle

import pytest
import torch
from small_moe import COMBINATIONS, DIM, build, tokens
from torch import nn
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from vmoe.moe import balance_for, moe_layers, record

SPECS = [COMBINATIONS["topk-mlp"], COMBINATIONS["routing_free-lowrank_glu"], COMBINATIONS["uniform-mlp"]]


class Block(nn.Module):
    def __init__(self, spec, seed):
        super().__init__()
        self.norm = nn.LayerNorm(DIM)
        self.mlp = build(spec, seed=seed, dropout_hidden=0.2)

    def forward(self, x):
        return x + self.mlp(self.norm(x))


class Host(nn.Module):
    """Two residual blocks with MoE layers, with or without activation checkpointing."""

    def __init__(self, spec):
        super().__init__()
        self.blocks = nn.ModuleList([Block(spec, 0), Block(spec, 1)])
        self.checkpointing = False

    def forward(self, x):
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.checkpointing else block(x)
        return x


@pytest.fixture(params=SPECS, ids=lambda s: s.gate.kind)
def spec(request):
    return request.param


@pytest.fixture
def host(spec):
    return Host(spec)


def listeners(model):
    return [layer.listener for _, layer in moe_layers(model)]


def test_routings_by_name_in_order(host):
    x = tokens(2, 5, DIM)
    with record(host) as routings:
        assert dict(routings) == {}
        host(x)
    assert list(routings) == ["blocks.0.mlp", "blocks.1.mlp"]
    assert [routing.shape for routing in routings.values()] == [(2, 5), (2, 5)]


def test_recording_does_not_change_the_output(host):
    host.eval()
    x = tokens(2, 5, DIM)
    with record(host):
        inside = host(x)
    assert inside.equal(host(x))


def test_the_latest_forward_counts(host):
    with record(host) as routings:
        host(tokens(1, 5, DIM))
        host(tokens(3, 5, DIM))
        assert routings["blocks.0.mlp"].num_tokens == 15
        routings.clear()
        assert len(routings) == 0
        host.blocks[1](tokens(2, 5, DIM))
        assert list(routings) == ["blocks.1.mlp"]


def test_nothing_stays_after_the_scope(host):
    state = list(host.state_dict())
    attributes = {name: set(vars(module)) for name, module in host.named_modules()}
    with record(host) as routings:
        host(tokens(2, 5, DIM))
        assert None not in listeners(host)
    host(tokens(4, 5, DIM))
    assert routings["blocks.0.mlp"].num_tokens == 10  # the later forward is not in it
    assert listeners(host) == [None, None]
    assert list(host.state_dict()) == state
    assert {name: set(vars(module)) for name, module in host.named_modules()} == attributes


def test_a_second_scope_is_refused_and_leaves_the_first_as_it_is(host):
    with record(host) as outer:
        for inner in (host, host.blocks[0]):
            with pytest.raises(RuntimeError, match="recorded already"), record(inner):
                pass
        host(tokens(2, 5, DIM))
        assert len(outer) == 2
    with record(host):
        pass


def test_scopes_one_after_the_other(host):
    for batch in (1, 2):
        with record(host) as routings:
            host(tokens(batch, 5, DIM))
        assert routings["blocks.1.mlp"].num_tokens == 5 * batch


def test_an_error_inside_ends_the_scope(host):
    with pytest.raises(RuntimeError, match="shape"), record(host):
        host(tokens(2, 5, DIM + 1))
    assert listeners(host) == [None, None]


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["copy", "pickle"])
def test_a_copy_is_free_of_the_scope_it_was_made_in(host, duplicate):
    x = tokens(2, 5, DIM)
    with record(host) as routings:
        before = duplicate(host)
        host(x)
        after = duplicate(host)
        routings.clear()
        for copied in (before, after):
            assert listeners(copied) == [None, None]
            with record(copied) as own:
                copied(x)
            assert len(own) == 2
        assert len(routings) == 0
        host(x)
        assert len(routings) == 2  # the original is still listened to
    assert copy.deepcopy(host).eval()(x).equal(host.eval()(x))


def test_a_model_without_moe_layers():
    with record(nn.Linear(3, 3)) as routings:
        assert len(routings) == 0


def test_gradients_reach_the_gate_through_the_record():
    host = Host(COMBINATIONS["topk-mlp"])
    with record(host) as routings:
        host(tokens(2, 5, DIM))
    routings["blocks.1.mlp"].weights.square().sum().backward()
    assert host.blocks[1].mlp.gate.router.weight.grad.any()
    with record(host) as routings, torch.no_grad():
        host(tokens(2, 5, DIM))
    assert not routings["blocks.1.mlp"].weights.requires_grad


def train_step(host, spec, *, inside):
    """Loss and gradients of a step; the backward pass inside or after the scope. Counts what is recorded."""
    balance = balance_for(host)
    if hasattr(balance, "coefficient"):
        balance.coefficient.fill_(0.5)
    seen = []
    host.zero_grad()
    torch.manual_seed(0)
    x = tokens(2, 5, DIM).requires_grad_()
    with record(host) as routings:
        for _, layer in moe_layers(host):
            tell = layer.listener
            layer.listener = lambda routing, tell=tell: (seen.append(routing), tell(routing))
        loss = host(x).square().mean() + balance(routings)
        if inside:
            loss.backward()
    if not inside:
        loss.backward()
    return loss.detach(), [x.grad, *(p.grad for p in host.parameters() if p.requires_grad)], len(seen)


@pytest.mark.parametrize("inside", [True, False])
def test_activation_checkpointing_records_once_and_keeps_every_gradient(host, spec, inside):
    loss, gradients, recorded = train_step(host, spec, inside=inside)
    host.checkpointing = True
    checkpointed_loss, checkpointed_gradients, checkpointed_recorded = train_step(host, spec, inside=inside)
    assert recorded == checkpointed_recorded == 2
    assert_close(checkpointed_loss, loss, rtol=0, atol=0)
    for got, wanted in zip(checkpointed_gradients, gradients, strict=True):
        assert_close(got, wanted)


def test_checkpointing_counts_no_density_twice():
    spec = COMBINATIONS["routing_free-lowrank_glu"]
    host = Host(spec)
    host.checkpointing = True
    balance = balance_for(host)
    with record(host) as routings:
        loss = host(tokens(2, 5, DIM)).sum() + balance(routings)
        loss.backward()
    assert int(balance.all_pairs) == 2 * 10 * 4
    assert int(balance.active_pairs) == sum(int(routing.active.sum()) for routing in routings.values())
