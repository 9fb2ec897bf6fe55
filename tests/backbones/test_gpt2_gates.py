"""Every gate in GPT-2: what it may look at, what it starts as, and that generation sees what training saw."""

import copy

import pytest
import torch
from hosts import CAUSAL_GATES, GATES, LOOK_PAST_A_TOKEN, TINY_GPT2, tiny_gpt2, train_step
from torch import nn
from torch.testing import assert_close

import vmoe
from vmoe.backbones import gpt2
from vmoe.moe import Dense, Glu, LowRankGlu, Mlp, MoE, MoESpec, Random, SelfRouting, TopK, balance_for, moe_layers
from vmoe.moe.gates import RoutingFreeGate

TOKENS = torch.randint(97, (3, 17), generator=torch.Generator().manual_seed(0))
INPUTS, LABELS = TOKENS[:, :-1], TOKENS[:, 1:]
EXPERTS = {"mlp": Mlp(), "glu": Glu(), "lowrank_glu": LowRankGlu()}
KINDS = {
    f"{name}, {kind}": MoESpec(gate=gate, experts=experts, layers="all")
    for name, gate in CAUSAL_GATES.items()
    for kind, experts in EXPERTS.items()
    if kind == "lowrank_glu" or not gate.SCORES_FEATURES
}


def moe_gpt2(gate, *, host=None, **values):
    spec = MoESpec(gate=gate, **{"layers": "all"} | values)
    return gpt2.add_moe(tiny_gpt2() if host is None else host, spec)


def spread(model):
    """The model with weights so large that gates and logits differ from token to token, in float64 and evaluating."""
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "wte" not in name:
                parameter.mul_(10)
        for _, layer in moe_layers(model):
            if isinstance(layer.gate, RoutingFreeGate):
                layer.gate.scale.div_(20)  # so that scores, 2 thresholds at the start, are about 1
    return model.double().eval()


# --- what may be put in ----------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", KINDS)
def test_every_parameter_is_trained(name, bias):
    model = gpt2.add_moe(tiny_gpt2(bias=bias, dropout=0.1), KINDS[name])
    layers = [f"transformer.h.{number}.mlp" for number in range(2)]
    assert [layer for layer, _ in moe_layers(model)] == layers
    gradients = train_step(model, INPUTS, LABELS).gradients
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    assert {name for name, _ in model.named_parameters()} - set(gradients) == {
        f"{layer}.gate.router.weight" for layer in layers if name.startswith("fixed")
    }


@pytest.mark.parametrize(
    ("name", "reason"),
    list(
        zip(
            LOOK_PAST_A_TOKEN,
            [
                "gate.kind is 'random', and source uniform routes by a token's position in the forward",
                "gate.kind is 'random', and source hash routes by a token's position in the forward",
                "gate.kind is 'expert_choice', and its experts choose among all tokens of a sequence, later ones too",
                "gate.kind is 'soft', and its slots mix all tokens of a sequence, later ones too",
            ],
            strict=True,
        )
    ),
)
def test_gates_that_look_past_a_token_are_refused(name, reason):
    host = tiny_gpt2()
    with pytest.raises(ValueError, match=f"{reason}.*; allowed in a causal model: gates that look at each token alone"):
        gpt2.add_moe(host, MoESpec(gate=GATES[name]))
    assert not any(moe_layers(host))


@pytest.mark.parametrize(("layers", "numbers"), [("every2", [1]), ("last1", [1]), ((0,), [0]), ("all", [0, 1])])
def test_blocks_are_chosen_as_in_other_hosts(layers, numbers):
    model = moe_gpt2(TopK(), layers=layers)
    assert [isinstance(block.mlp, MoE) for block in model.transformer.h] == [i in numbers for i in range(2)]
    with vmoe.record(model) as routings:
        model(INPUTS)
    assert list(routings) == [f"transformer.h.{i}.mlp" for i in numbers]
    assert {tuple(routing.shape) for routing in routings.values()} == {(3, 16)}


def test_a_model_is_converted_once():
    model = moe_gpt2(TopK())
    with pytest.raises(ValueError, match="has MoE layers already"):
        gpt2.add_moe(model, MoESpec())
    dense_row = gpt2.add_moe(tiny_gpt2(), MoESpec(gate=Dense(), experts=Glu(), layers="all"))
    with pytest.raises(ValueError, match=r"its transformer.h.0.mlp is a DenseExperts"):
        gpt2.add_moe(dense_row, MoESpec())


def test_dense_leaves_the_model_as_it_is():
    model = tiny_gpt2()
    before = str(model)
    assert gpt2.add_moe(model, MoESpec(gate=Dense())) is model
    assert str(model) == before


def test_fresh_experts_have_the_deviations_of_the_host():
    """So the layer that joins the residual stream starts at 0.02/√(2·8) = 0.005."""
    host = tiny_gpt2(n_layer=8, n_embd=64)
    experts = moe_gpt2(TopK(), host=host, layers=(3,)).transformer.h[3].mlp.experts
    assert float(experts.fc1.weight.detach().std()) == pytest.approx(0.02, rel=0.03)
    assert float(experts.fc2.weight.detach().std()) == pytest.approx(0.005, rel=0.03)
    assert experts.activation_name == "gelu_tanh"


def test_dropout_is_the_hosts():
    layer = moe_gpt2(TopK(), host=tiny_gpt2(dropout=0.3)).transformer.h[0].mlp
    assert (layer.experts.dropout, layer.dropout) == (0, 0.3)  # none of hidden rows, as GPT-2


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", CAUSAL_GATES)
def test_biases_and_gate_scales_do_not_decay(name, bias):
    model = moe_gpt2(CAUSAL_GATES[name], host=tiny_gpt2(bias=bias))
    stacked = {f"{layer}.bias" for layer in ("experts.fc1", "experts.fc2")} if bias else set()
    gate = CAUSAL_GATES[name]
    own = {"gate.scale", "gate.bias"} if gate.kind == "routing_free" else set()
    own |= set() if gate.SCORES_FEATURES else stacked
    assert model.no_weight_decay() == {f"transformer.h.{i}.mlp.{name}" for i in range(2) for name in own}


# --- what it starts as -----------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "gate", [TopK(k=1), TopK(k=3), SelfRouting(k=2), SelfRouting(k=2, input="residual"), Random(k=2)]
)
def test_upcycled_copies_are_the_dense_model(gate, bias):
    """Every expert is the dense MLP and a token's weights sum to 1."""
    dense = spread(tiny_gpt2(bias=bias))
    spec = MoESpec(gate=gate, experts=Mlp(hidden="host"), init="upcycle", layers="all")
    moe = gpt2.add_moe(copy.deepcopy(dense), spec)
    assert {parameter.dtype for parameter in moe.parameters()} == {torch.float64}
    assert_close(moe(INPUTS).logits, dense(INPUTS).logits, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("activation", ["gelu_new", "gelu_pytorch_tanh", "gelu", "silu"])
def test_upcycled_glu_experts_come_near_the_mlp(activation):
    """sigmoid(αh)·h is SiLU, and GELU up to 0.02; wrongly transposed weights would be nowhere near."""
    host = tiny_gpt2(bias=False, activation_function=activation)
    mlp, x = host.transformer.h[0].mlp, torch.randn(64, 32)
    spec = MoESpec(gate=TopK(), experts=Glu(hidden="host"), init="upcycle", layers="all")
    layer = gpt2.add_moe(host, spec).transformer.h[0].mlp.eval()
    error = (layer(x) - mlp(x)).norm() / mlp(x).norm()
    assert error < (1e-5 if activation == "silu" else 0.2)


def test_one_seed_gives_the_same_host_whatever_the_gate():
    dense = tiny_gpt2(seed=5).state_dict()
    for gate in CAUSAL_GATES.values():
        torch.manual_seed(5)
        model = gpt2.create_model("gpt2", MoESpec(gate=gate, layers=(1,)), **TINY_GPT2)
        own = {name: value for name, value in model.state_dict().items() if not name.startswith("transformer.h.1.mlp")}
        assert_close(own, {name: dense[name] for name in own}, rtol=0, atol=0)


@pytest.mark.parametrize("bias", [True, False])
def test_self_routing_by_the_residual_reads_what_the_norm_reads(bias):
    host = tiny_gpt2(bias=bias)
    for block in host.transformer.h:
        nn.init.normal_(block.ln_2.weight)
    norm = host.transformer.h[1].ln_2
    seen = {}
    norm.register_forward_hook(lambda _, inputs, output: seen.update(before=inputs[0], after=output))
    model = moe_gpt2(SelfRouting(input="residual"), host=host)
    assert model.transformer.h[1].mlp.norm is norm  # moved, not lost
    assert isinstance(model.transformer.h[1].ln_2, nn.Identity)
    with vmoe.record(model) as routings:
        model(INPUTS)
    assert_close(routings["transformer.h.1.mlp"].scores, seen["before"].flatten(0, 1)[:, -8:])


# --- sequences -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dense", *CAUSAL_GATES])
def test_later_tokens_change_nothing_before_them(name):
    model = spread(moe_gpt2(CAUSAL_GATES.get(name, Dense())))
    changed = INPUTS.clone()
    changed[:, 9] = (changed[:, 9] + 1) % 97
    before, after = model(INPUTS).logits, model(changed).logits
    assert_close(after[:, :9], before[:, :9], rtol=1e-10, atol=1e-10)
    assert not torch.allclose(after[:, 9:], before[:, 9:], atol=1e-3)


@pytest.mark.parametrize("name", CAUSAL_GATES)
def test_a_sequence_is_routed_alike_alone_and_in_part(name):
    model = spread(moe_gpt2(CAUSAL_GATES[name]))
    with vmoe.record(model) as routings, torch.no_grad():
        model(INPUTS)
        together = {layer: routing.active.view(3, 16, -1) for layer, routing in routings.items()}
        assert {active.flatten(0, 1).unique(dim=0).shape[0] > 1 for active in together.values()} == {True}
        for number, sequence in enumerate(INPUTS):
            for length in (16, 5, 1):
                model(sequence[None, :length])
                for layer, routing in routings.items():
                    assert routing.active.equal(together[layer][number, :length])


@pytest.mark.parametrize("name", ["dense", *CAUSAL_GATES])
def test_generation_with_a_cache_is_generation_without(name):
    """And both are the most likely token after a forward of the whole text so far, again and again."""
    model = spread(moe_gpt2(CAUSAL_GATES.get(name, Dense())))
    prompt = INPUTS[:, :4]
    options = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    with torch.no_grad():
        cached, plain = (model.generate(prompt, use_cache=use, **options) for use in (True, False))
        expected = prompt
        for _ in range(12):
            expected = torch.cat([expected, model(expected).logits[:, -1:].argmax(-1)], 1)
    assert cached.equal(plain)
    assert cached.equal(expected)
    assert len(expected[:, 4:].unique()) > 3  # so that equality says something


def test_the_start_is_balanced_by_its_loss_alone():
    """A balance is built for GPT-2's layers as for any other's."""
    model = moe_gpt2(TopK(balance=0.5))
    with vmoe.record(model) as routings:
        model(INPUTS)
    # two layers' E · Σ f P, near 1 each at an even start, times the coefficient
    assert float(balance_for(model)(routings).detach()) == pytest.approx(1, rel=0.1)
