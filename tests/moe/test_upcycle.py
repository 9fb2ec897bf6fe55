"""Experts made of a dense MLP stand for it: exactly where theory says so, else within bounds that it gives."""

import math

import pytest
import torch
from small_moe import DIM, tokens
from torch import nn
from torch.nn import functional

from vmoe.moe import (
    AutonomyOfExperts,
    Dense,
    DenseMlp,
    ExpertChoice,
    Glu,
    HostMlp,
    LowRankGlu,
    Mlp,
    MoESpec,
    Random,
    Relu,
    RoutingFree,
    SelfRouting,
    Soft,
    TopK,
    build_dense,
    build_moe,
    record,
)
from vmoe.moe.build import build_experts
from vmoe.moe.upcycle import SLOPES, divide_output, expected_weight, factorisation_error, typical_tokens, upcycle
from vmoe.moe.widths import Budget

HIDDEN = 48
EXPERTS = 4
UNIT = 2.0**-24  # half the distance of 1 and the next float32: the relative error of one rounding
STEEPEST_GELU = 1.13  # the largest slope of GELU, at √2
WORST_SIGMOID_GELU = 0.0203  # the largest |gelu(h) − h · sigmoid(1.702 h)|, near |h| = 2.3


class Host(nn.Module):
    """A dense MLP whose weights and biases all matter, and the norm before it with a gain and a shift of its own."""

    def __init__(self, activation: nn.Module | None = None, *, bias: bool = True, dim: int = DIM, hidden: int = HIDDEN):
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, hidden, bias=bias)
        self.act = activation or nn.GELU()
        self.fc2 = nn.Linear(hidden, dim, bias=bias)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.4)
        nn.init.normal_(self.norm.weight, mean=1, std=0.3)

    def forward(self, x):
        return self.fc2(self.act(self.fc1(x)))

    @property
    def dense(self) -> DenseMlp:
        return DenseMlp(self.fc1, self.fc2)

    def described(self, **values) -> HostMlp:
        known = {
            "dim": self.fc1.in_features,
            "hidden": self.fc1.out_features,
            "activation": self.act,
            "bias": self.fc1.bias is not None,
            "std_in": 0.4,
            "std_out": 0.4,
            "norm": self.norm,
            "tokens": 9,
            "dense": self.dense,
        }
        return HostMlp(**known | values)


def layer_of(host: Host, gate, experts, *, host_values=None, seed=0, **spec):
    torch.manual_seed(seed)
    spec = MoESpec(gate=gate, experts=experts, **{"num_experts": EXPERTS, "init": "upcycle"} | spec)
    return build_moe(spec, host.described(**host_values or {})).eval()


def stack_of(host: Host, experts, num_experts=EXPERTS):
    """A stack of experts, not upcycled yet."""
    return build_experts(experts, host.described(), num_experts, Budget(1, 1, 1))


def rounding_bound(host: Host, x, extra: int):
    """How far two float32 evaluations of the MLP on x may be apart, whatever the order of their sums.

    A sum of n products in float32 is off by at most n · u · Σ|a·b| (Higham, Accuracy and Stability, eq. 3.5, first
    order). The hidden units carry that of their D products and a bias, times GELU's slope, and a few roundings of
    the activation; the outputs carry it on, and add that of their H products. extra: roundings besides, of weights,
    scales and the sum over experts. The bound is of one evaluation against exact arithmetic, so two differ by twice it.
    """
    w1, b1, w2, b2 = (p.detach().double() for p in (host.fc1.weight, host.fc1.bias, host.fc2.weight, host.fc2.bias))
    x = x.double()
    dim, hidden = w1.shape[1], w1.shape[0]
    activated = host.act(functional.linear(x, w1, b1))
    off = STEEPEST_GELU * (dim + 1) * UNIT * functional.linear(x.abs(), w1.abs(), b1.abs()) + 8 * UNIT * activated.abs()
    carried = functional.linear(off, w2.abs())
    own = (hidden + 1 + extra) * UNIT * functional.linear(activated.abs(), w2.abs(), b2.abs())
    return 2 * (carried + own)


def assert_dense(layer, host, x):
    with torch.no_grad():
        difference = (layer(x).double() - host(x).double()).abs()
    # each of E experts and a shared one: a weight (softmax: 4 roundings), a scale, a product and a sum
    bound = rounding_bound(host, x, extra=8 * (EXPERTS + 1))
    assert (difference <= bound).all(), float((difference / bound).max())
    assert (bound < 1e-3 * host(x).norm(dim=-1, keepdim=True)).all(), "the bound says something"


EQUAL_SUMS = {
    **{f"topk-{k}": TopK(k=k) for k in (1, 2, EXPERTS)},
    "topk-all-as-they-are": TopK(k=EXPERTS, renormalize=False),
    "topk-bias": TopK(k=2, bias_rate=0.1),
    **{f"self-{k}": SelfRouting(k=k) for k in (1, 2, EXPERTS)},
    "self-residual": SelfRouting(k=2, input="residual"),
    **{f"{source}-{k}": Random(k=k, source=source) for source in ("fixed", "hash", "uniform") for k in (1, 3)},
}


@pytest.mark.parametrize("shared", [0, 1])
@pytest.mark.parametrize("gate", EQUAL_SUMS.values(), ids=EQUAL_SUMS)
def test_copies_whose_weights_sum_to_1_are_the_dense_mlp(gate, shared):
    host = Host()
    layer = layer_of(host, gate, Mlp(hidden="host"), shared_experts=shared)
    x = tokens(3, 9, DIM)
    if layer.norm is None:
        assert_dense(layer, host, x)
        return
    with torch.no_grad():  # the layer applies the norm itself
        difference = (layer(x).double() - host(host.norm(x)).double()).abs()
    assert (difference <= rounding_bound(host, host.norm(x), extra=8 * (EXPERTS + 1))).all()


def test_copies_are_copies_bit_by_bit():
    """Where weights sum to 1 up to their rounding, nothing is scaled."""
    host = Host()
    layer = layer_of(host, TopK(k=3), Mlp(hidden="host"))
    for e in range(EXPERTS):
        assert layer.experts.fc1.weight[e].equal(host.fc1.weight)
        assert layer.experts.fc1.bias[e].equal(host.fc1.bias)
        assert layer.experts.fc2.weight[e].equal(host.fc2.weight)
        assert layer.experts.fc2.bias[e].equal(host.fc2.bias)


def test_parts_with_weight_1_are_together_the_dense_mlp():
    """E experts of H/E units, each standing for the whole: with all weights 1 they sum to E times the MLP, hence /E."""
    host = Host()
    experts = stack_of(host, Mlp(hidden=HIDDEN // EXPERTS))
    upcycle(experts, host.dense)
    divide_output(experts, EXPERTS)
    x = tokens(20, DIM)
    with torch.no_grad():
        difference = (experts.everywhere(x).double() - host(x).double()).abs()
    assert (difference <= rounding_bound(host, x, extra=8 * EXPERTS)).all()


@pytest.mark.parametrize("gate", [Random(k=EXPERTS, source="hash"), Random(k=EXPERTS, source="uniform")])
def test_all_parts_with_equal_weights_are_the_dense_mlp(gate):
    host = Host()
    layer = layer_of(host, gate, Mlp(hidden=HIDDEN // EXPERTS))
    assert layer.experts.fc1.weight.flatten(0, 1).equal(host.fc1.weight)
    assert_dense(layer, host, tokens(3, 9, DIM))


def test_some_parts_are_not_the_dense_mlp():
    host = Host()
    layer, x = layer_of(host, TopK(k=2), Mlp(hidden=HIDDEN // EXPERTS)), tokens(3, 9, DIM)
    with torch.no_grad():
        assert (layer(x) - host(x)).norm() > 0.1 * host(x).norm()


def test_shared_experts_take_the_units_that_the_routed_ones_leave():
    host = Host()
    layer = layer_of(host, TopK(k=2), Mlp(hidden=HIDDEN // 6), shared_experts=2)
    rows = torch.cat([layer.experts.fc1.weight.flatten(0, 1), layer.shared.fc1.weight.flatten(0, 1)])
    assert rows.equal(host.fc1.weight)


@pytest.mark.parametrize(
    "gate",
    [
        TopK(k=1, renormalize=False),
        SelfRouting(k=2, renormalize=False),
        Relu(k=2),
        ExpertChoice(capacity_factor=2.0),
        AutonomyOfExperts(k=2, renormalize=False),
        RoutingFree(),
    ],
    ids=lambda gate: gate.kind,
)
def test_weights_that_do_not_sum_to_1_are_made_up_for_in_the_mean(gate):
    """Second layers are divided by the sum of weights: over tokens of other draws, the two are 1 in the mean.

    2048 tokens measured, and 2048 here; a token's sum deviates by less than its mean, so 5 deviations of the difference
    of two such means are 5 · √(2/2048) = 0.16.
    """
    host = Host()
    experts = LowRankGlu(hidden=40, rank=8) if gate.SCORES_FEATURES else Mlp(hidden="host")
    layer = layer_of(host, gate, experts, host_values={"tokens": 256})
    unscaled = stack_of(host, experts)
    upcycle(unscaled, host.dense)
    last = layer.experts.layers()[-1].weight
    divisor = float((unscaled.layers()[-1].weight / last).detach().median())
    assert torch.allclose(last * divisor, unscaled.layers()[-1].weight, rtol=1e-5)
    torch.manual_seed(5)
    with record(layer) as routings, torch.no_grad():
        layer(typical_tokens(host.norm, DIM, 256).normed)
    sums = routings[""].weights.sum(1)
    assert sums.std() < sums.mean()
    assert float(sums.mean()) / divisor == pytest.approx(1, abs=0.16)


def test_the_expected_weight_is_that_of_the_gate_as_it_evaluates():
    """Uniform routing weighs 1/k in training too; jitter is left out; the gate's mode stays as it was."""
    host = Host()
    layer = layer_of(host, TopK(k=2, renormalize=False, jitter=0.9), Mlp(hidden="host"))
    layer.gate.train()
    x = tokens(4, 50, DIM)
    total = expected_weight(layer.gate, x, None)
    assert total == expected_weight(layer.gate, x, None)
    assert layer.gate.training
    probabilities = (x.flatten(0, 1) @ layer.gate.router.weight.T).softmax(-1)
    assert total == pytest.approx(float(probabilities.detach().topk(2).values.sum(1).mean()), abs=1e-6)


# --- Soft MoE --------------------------------------------------------------------------------------------


def test_soft_experts_equal_the_dense_mlp_for_equal_tokens_only():
    """A slot is a weighted mean of a sequence's tokens: of equal ones it is that token, of others none of them."""
    host = Host()
    layer = layer_of(host, Soft(slots=2), Mlp(hidden="host"))
    one = tokens(3, 1, DIM).expand(3, 9, DIM)
    # the mixing and the combining weights are softmaxes over 9 tokens and 8 slots: 9 + 8 more products in a row
    with torch.no_grad():
        difference = (layer(one).double() - host(one).double()).abs()
        assert (difference <= rounding_bound(host, one, extra=80) + mixing_bound(host, one, 20)).all()
        other = tokens(3, 9, DIM)
        assert (layer(other) - host(other)).norm() > 0.1 * host(other).norm()


def mixing_bound(host: Host, x, roundings: int):
    """How far the outputs may move when every coordinate of x is rounded so many times."""
    w1, w2 = host.fc1.weight.detach().double().abs(), host.fc2.weight.detach().double().abs()
    return STEEPEST_GELU * functional.linear(functional.linear(roundings * UNIT * x.double().abs(), w1), w2)


# --- GLU experts -----------------------------------------------------------------------------------------


def test_glu_experts_of_a_silu_mlp_without_biases_are_that_mlp():
    """``silu(h) = sigmoid(h) · h``, in float64 to its rounding: some 100 products of 1.1e-16 each."""
    host = Host(nn.SiLU(), bias=False).double()
    layer = layer_of(
        host, TopK(k=2), Glu(hidden="host"), host_values={"activation": nn.Sigmoid(), "gate_slope": SLOPES["SiLU"]}
    ).double()
    x = tokens(3, 9, DIM, dtype=torch.float64)
    # the experts were made in float32, which holds the host's weights, drawn in float32, exactly
    with torch.no_grad():
        assert torch.allclose(layer(x), host(x), rtol=0, atol=1e-12 * float(host(x).abs().max()))


def test_glu_experts_of_a_gelu_mlp_without_biases_are_off_by_the_sigmoids_error_at_most():
    h = torch.linspace(-12, 12, 240_001, dtype=torch.float64)
    off = (functional.gelu(h) - h * torch.sigmoid(SLOPES["GELU"] * h)).abs()
    assert float(off.max()) == pytest.approx(WORST_SIGMOID_GELU, abs=5e-5)

    host = Host(nn.GELU(), bias=False)
    layer = layer_of(
        host, TopK(k=2), Glu(hidden="host"), host_values={"activation": nn.Sigmoid(), "gate_slope": SLOPES["GELU"]}
    )
    x = tokens(3, 9, DIM)
    with torch.no_grad():
        difference = (layer(x) - host(x)).abs()
        allowed = WORST_SIGMOID_GELU * host.fc2.weight.abs().sum(1)  # of each output coordinate
        assert (difference <= 1.001 * allowed).all()  # 0.1 % for the roundings, which are below 1e-5
        assert difference.max() > 0.01 * allowed.max(), "an approximation, not the MLP itself"


def test_low_rank_experts_of_full_rank_are_glu_experts():
    host = Host(bias=False)
    values = {"host_values": {"activation": nn.Sigmoid(), "gate_slope": 1.702}}
    glu = layer_of(host, TopK(k=2), Glu(hidden=HIDDEN // 2), **values).double()
    low = layer_of(host, TopK(k=2), LowRankGlu(hidden=HIDDEN // 2, rank=DIM), **values).double()
    low.gate.load_state_dict(glu.gate.state_dict())
    product = low.experts.gate_up.weight @ low.experts.gate_down.weight
    # the SVD is float32: its factors' product is off by some multiple of 6e-8 of the matrix's norm
    scale = float(glu.experts.gate.weight.detach().norm(dim=(1, 2)).max())
    assert torch.allclose(product, glu.experts.gate.weight, rtol=0, atol=20 * UNIT * scale)
    x = tokens(3, 9, DIM, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(low(x), glu(x), rtol=0, atol=1e-5 * float(glu(x).abs().max()))
    assert factorisation_error(low.experts, host.dense) < 20 * UNIT


@pytest.mark.parametrize("rank", [1, 3, 8])
@pytest.mark.parametrize("slope", [1.0, 1.702])
@pytest.mark.parametrize("hidden", [HIDDEN, HIDDEN // 2, 40])
def test_the_error_of_the_factors_is_the_tail_of_the_singular_values(rank, slope, hidden):
    """‖W − W_R‖² = Σ_{r>R} s_r² (Eckart and Young), from the eigenvalues s² of WᵀW, summed over the experts."""
    host = Host()
    experts = stack_of(host, LowRankGlu(hidden=hidden, rank=rank))
    upcycle(experts, host.dense, gate_slope=slope)
    w1 = host.fc1.weight.detach().double()
    tail = whole = 0.0
    for e in range(EXPERTS):
        part = torch.stack([w1[(e * hidden + unit) % HIDDEN] for unit in range(hidden)])
        squares = torch.linalg.eigvalsh(part.T @ part)  # ascending
        tail += float(squares[: DIM - rank].sum())
        whole += float(squares.sum())
    assert factorisation_error(experts, host.dense) == pytest.approx(math.sqrt(tail / whole), rel=1e-5)


def test_rank_beyond_the_weights_own_changes_nothing():
    host = Host()
    experts = stack_of(host, LowRankGlu(hidden=8, rank=20))
    upcycle(experts, host.dense)
    assert factorisation_error(experts, host.dense) < 20 * UNIT
    assert not experts.gate_down.weight[:, 8:].any()


def test_one_glu_expert_without_a_gate_is_upcycled_too():
    host = Host(nn.SiLU(), bias=False)
    spec = MoESpec(gate=Dense(), experts=Glu(hidden="host"), init="upcycle")
    layer = build_dense(spec, host.described(activation=nn.Sigmoid())).eval()
    x = tokens(3, 9, DIM)
    with torch.no_grad():
        assert torch.allclose(layer(x), host(x), rtol=0, atol=1e-5 * float(host(x).abs().max()))


# --- noise, and what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize("experts", [Mlp(hidden="host"), Glu(hidden=64), LowRankGlu(hidden=64, rank=16)])
def test_noise_has_the_stated_deviation_in_every_stack_of_weights(experts):
    host = Host(dim=32, hidden=128)
    plain, noisy = stack_of(host, experts), stack_of(host, experts)
    upcycle(plain, host.dense)
    torch.manual_seed(3)
    upcycle(noisy, host.dense, noise=0.25)
    before = {name: parameter.detach() for name, parameter in plain.named_parameters()}
    for name, parameter in noisy.named_parameters():
        difference = parameter.detach() - before[name]
        if name.endswith("bias"):
            assert not difference.any()
            continue
        relative = float(difference.std() / before[name].std())
        error = 1 / math.sqrt(2 * difference.numel())  # of a deviation from so many draws
        assert relative == pytest.approx(0.25, rel=5 * error), name
        assert abs(float(difference.mean())) < 5 * float(difference.std()) / math.sqrt(difference.numel())


def test_noise_makes_copies_differ():
    layer = layer_of(Host(), TopK(k=2), Mlp(hidden="host"), upcycle_noise=0.01)
    assert not layer.experts.fc1.weight[0].equal(layer.experts.fc1.weight[1])


# Experts recur after H / gcd(H, F) of them.
@pytest.mark.parametrize(
    ("num_experts", "hidden", "distinct"), [(4, HIDDEN, 1), (4, HIDDEN // 2, 2), (5, HIDDEN // 4, 4), (4, 32, 3)]
)
@pytest.mark.parametrize("gate", [AutonomyOfExperts(k=2), RoutingFree()], ids=lambda gate: gate.kind)
def test_equal_experts_that_score_themselves_are_refused_without_noise(gate, num_experts, hidden, distinct):
    host, experts = Host(), LowRankGlu(hidden=hidden, rank=8)
    with pytest.raises(
        ValueError, match=rf"upcycle_noise is 0.0; allowed: more than 0 for {num_experts} .* only {distinct} differ"
    ):
        layer_of(host, gate, experts, num_experts=num_experts)
    layer = layer_of(host, gate, experts, num_experts=num_experts, upcycle_noise=0.01)
    assert len({tuple(row) for row in layer.experts.gate_down.weight.flatten(1).tolist()}) == num_experts
    fewer = layer_of(host, gate, experts, num_experts=distinct) if distinct >= 2 else None
    assert fewer is None or len(fewer.experts.gate_down.weight) == distinct


@pytest.mark.parametrize("experts", [Mlp(hidden=56), Glu(hidden=56), LowRankGlu(hidden=56, rank=8)])
def test_experts_wider_than_the_mlp_are_refused(experts):
    gate = RoutingFree() if isinstance(experts, LowRankGlu) else TopK()
    with pytest.raises(ValueError, match=r"experts.hidden comes to 56; allowed with init: upcycle: at most .* 48"):
        layer_of(Host(), gate, experts)


def test_without_an_mlp_upcycling_is_refused_unless_weights_follow():
    spec = MoESpec(gate=TopK(), experts=Mlp(hidden="host"), init="upcycle")
    described = Host().described(dense=None)
    with pytest.raises(ValueError, match="init is 'upcycle'; allowed: fresh"):
        build_moe(spec, described)
    assert build_moe(spec, described, weights_follow=True).experts.num_experts == 8


@pytest.mark.parametrize("rank", [1, 4, 12])
@pytest.mark.parametrize("spectrum", [0.0, 2.0])
def test_routing_free_starts_dense_when_upcycled(rank, spectrum):
    """Also where the MLP's first weight has few strong directions, so that the features of an expert are not alike.

    spectrum: the exponent by which the singular values of the first weight fall.
    """
    host = Host()
    with torch.no_grad():
        u, s, vt = torch.linalg.svd(host.fc1.weight, full_matrices=False)
        host.fc1.weight.copy_(u * s * torch.arange(1, DIM + 1) ** -spectrum @ vt)
    layer = layer_of(host, RoutingFree(), LowRankGlu(hidden=20, rank=rank))
    torch.manual_seed(7)
    with record(layer) as routings, torch.no_grad():
        layer(typical_tokens(host.norm, DIM, 500).normed)
    assert routings[""].active.float().mean(0).min() >= 0.9
