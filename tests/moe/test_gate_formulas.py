"""Whole layers against the formulas of the methods, transcribed as loops over tokens, experts and slots.

Models of one or two layers: outputs, balance losses, and the gradients of x and of every parameter, in float64, for
random shapes, weights and tokens. Cases within `GAP` of a tie or a threshold are left out, since there the formulas
jump. Nothing of `vmoe` computes the expected values.
"""

from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import nn

from vmoe.moe import (
    AutonomyOfExperts,
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
    balance_for,
    build_moe,
    record,
)
from vmoe.moe.spec import FixedK

GAP = 1e-6
RELATIVE = 1e-10
CANCELLED = 1e-14  # of a case's largest value: what is left in float64 of terms that add up to 0

ACTIVATIONS = {"gelu": nn.GELU, "silu": nn.SiLU}
GATES = ["topk", "bias", "self", "residual", "fixed", "hash", "aoe", "relu", "routing_free", "expert_choice", "soft"]


# --- The formulas ----------------------------------------------------------------------------------------


def activate(h, name):
    """GELU ``h Φ(h)`` or SiLU ``h σ(h)`` of a vector."""
    if name == "silu":
        return h / (1 + (-h).exp())
    return h * (1 + torch.erf(h / 2**0.5)) / 2


def expert(weights, e, x, activation):
    """Expert e of a stack on one token."""
    if "fc1.weight" in weights:
        h = activate(weights["fc1.weight"][e] @ x + weights["fc1.bias"][e], activation)
        return weights["fc2.weight"][e] @ h + weights["fc2.bias"][e]
    if "gate.weight" in weights:
        h = activate(weights["gate.weight"][e] @ x, activation)
    else:
        h = activate(weights["gate_up.weight"][e] @ (weights["gate_down.weight"][e] @ x), activation)
    return weights["down.weight"][e] @ (h * (weights["up.weight"][e] @ x))


def number(scalar):
    """A scalar tensor's value, for comparisons."""
    return float(scalar.detach())


def softmax(values):
    """Of a list of scalars."""
    powers = [value.exp() for value in values]
    return [power / sum(powers) for power in powers]


def best(values, k):
    """Where the k largest of a list of scalars are."""
    order = sorted(range(len(values)), key=lambda i: -number(values[i]))
    if 0 < k < len(order):
        assume(number(values[order[k - 1]]) - number(values[order[k]]) > GAP)
    return order[:k]


def top_k(scores, ranked, spec):
    """A token's weights, None for inactive experts: a softmax over the k best, or over all."""
    chosen = best(ranked, spec.k)
    over = chosen if spec.renormalize else range(len(scores))
    probability = dict(zip(over, softmax([scores[e] for e in over]), strict=True))
    return [probability[e] if e in chosen else None for e in range(len(scores))]


def norm_of(z, norm):
    if norm == "l1":
        assume(number(z.abs().min()) > GAP)
        return sum(abs(value) for value in z)
    if norm == "linf":
        return abs(z[best([abs(value) for value in z], 1)[0]])
    assume(number(z.norm()) > GAP)
    return sum(value**2 for value in z) ** 0.5


@dataclass
class Layer:
    """A layer's spec and tensors, by name, and what its formulas gave: scores[t][e] and weights[t][e] or None."""

    spec: MoESpec
    activation: str
    weights: dict
    bias_steps: list
    hashed: list  # of a hashed gate, which expert serves which token
    number: int
    scores: list = field(default_factory=list)
    gates: list = field(default_factory=list)

    def part(self, name):
        return {key.removeprefix(f"{name}."): w for key, w in self.weights.items() if key.startswith(f"{name}.")}


def decide(layer, x, seen):
    """scores[t][e] and weights[t][e] of tokens x (B, N, D), and of the gate's own input."""
    spec, gate = layer.spec.gate, layer.part("gate")
    num_experts = layer.spec.num_experts
    flat, seen = [*x.flatten(0, 1)], [*seen.flatten(0, 1)]
    if isinstance(spec, SelfRouting):
        width = x.shape[2]
        offsets = spec.offset if isinstance(spec.offset, tuple) else [spec.offset] * 2
        offset = offsets[layer.number]
        first = width - num_experts if offset is None else offset
        scores = [[row[first + e] for e in range(num_experts)] for row in seen]
    elif isinstance(spec, AutonomyOfExperts | RoutingFree):
        down = layer.weights["experts.gate_down.weight"]
        norm = spec.norm if isinstance(spec, RoutingFree) else "l2"
        scores = [[norm_of(down[e] @ row, norm) for e in range(num_experts)] for row in flat]
    elif isinstance(spec, Random) and spec.source == "hash":
        return None, [[1 / spec.k if active else None for active in row] for row in layer.hashed]
    else:
        scores = [[gate["router.weight"][e] @ row for e in range(num_experts)] for row in seen]

    if isinstance(spec, TopK) and spec.bias_rate:
        ranked = [
            [p + spec.bias_rate * steps for p, steps in zip(softmax(row), layer.bias_steps, strict=True)]
            for row in scores
        ]
        return scores, [top_k(row, order, spec) for row, order in zip(scores, ranked, strict=True)]
    if isinstance(spec, FixedK):
        return scores, [top_k(row, row, spec) for row in scores]
    if isinstance(spec, Relu):
        assume(all(abs(number(s)) > GAP for row in scores for s in row))
        return scores, [[s if s > 0 else None for s in row] for row in scores]
    if isinstance(spec, RoutingFree):
        scores = [[gate["scale"][e] * n - gate["bias"][e] for e, n in enumerate(row)] for row in scores]
        threshold = spec.threshold / spec.temperature
        assume(all(abs(number(s) - threshold) > GAP for row in scores for s in row))
        return scores, [[s if s >= threshold else None for s in row] for row in scores]

    assert isinstance(spec, ExpertChoice)
    probabilities = [softmax(row) for row in scores]
    sequences, size = x.shape[:2]
    if spec.group == "batch":
        sequences, size = 1, sequences * size
    wanted = spec.capacity_factor * size / num_experts
    assume(abs(wanted % 1 - 0.5) > GAP)
    capacity = min(size, max(1, int(wanted + 0.5)))
    weights = [[None] * num_experts for _ in flat]
    for sequence in range(sequences):
        members = range(sequence * size, (sequence + 1) * size)
        for e in range(num_experts):
            for n in best([probabilities[t][e] for t in members], capacity):
                weights[members[n]][e] = probabilities[members[n]][e]
    return scores, weights


def routed(layer, x):
    """The output of a layer on x (B, N, D), whose norm, if it has one, divides x by its root mean square."""
    spec, experts, shared = layer.spec, layer.part("experts"), layer.part("shared")
    seen = x
    if getattr(spec.gate, "input", "normed") == "residual":
        x = torch.stack(
            [torch.stack([row / ((row @ row) / len(row) + 1e-6) ** 0.5 for row in sequence]) for sequence in x]
        )
        x = x * layer.weights["norm.weight"]
    if isinstance(spec.gate, Soft):
        y = torch.stack([soft_sequence(layer, sequence) for sequence in x])
    else:
        layer.scores, layer.gates = decide(layer, x, seen)
        rows = []
        for t, row in enumerate(x.flatten(0, 1)):
            y_t = torch.zeros_like(row)
            for e in range(spec.num_experts):
                if layer.gates[t][e] is not None:
                    y_t = y_t + layer.gates[t][e] * expert(experts, e, row, layer.activation)
            rows.append(y_t)
        y = torch.stack(rows).view(x.shape)
    for s in range(spec.shared_experts):
        added = [expert(shared, s, row, layer.activation) for row in x.flatten(0, 1)]
        y = y + torch.stack(added).view(x.shape)
    return y


def soft_sequence(layer, x):
    """Soft MoE on one sequence's tokens (N, D): ``x̃_s = Σ_t D_ts x_t``, ``y_t = Σ_s C_ts expert(x̃_s)``."""
    spec, gate, experts = layer.spec, layer.part("gate"), layer.part("experts")
    phi = gate["weight"]
    logits = [[row @ slot for slot in phi] for row in x]
    if spec.gate.normalize:
        logits = [
            [
                gate["scale"] * logit / ((row @ row) ** 0.5 * (slot @ slot) ** 0.5)
                for logit, slot in zip(line, phi, strict=True)
            ]
            for line, row in zip(logits, x, strict=True)
        ]
    count = len(phi) // spec.num_experts
    results = []
    for s in range(len(phi)):
        dispatch = softmax([line[s] for line in logits])
        mixed = sum(d * row for d, row in zip(dispatch, x, strict=True))
        results.append(expert(experts, s // count, mixed, layer.activation))
    return torch.stack([sum(c * y for c, y in zip(softmax(line), results, strict=True)) for line in logits])


def balance_loss(layers):
    """What is added to the task loss."""
    spec, num_experts = layers[0].spec.gate, layers[0].spec.num_experts
    num_tokens = len(layers[0].gates)
    total = torch.zeros((), dtype=torch.float64)
    if isinstance(spec, TopK | AutonomyOfExperts):
        for layer in layers:
            assigned = sum(g is not None for row in layer.gates for g in row)
            probabilities = [softmax(row) for row in layer.scores]
            for e in range(num_experts):
                f = sum(row[e] is not None for row in layer.gates) / assigned
                p = sum(row[e] for row in probabilities) / num_tokens
                total = total + spec.balance * num_experts * f * p
            if isinstance(spec, TopK):
                for row in layer.scores:
                    total = total + spec.z_loss * sum(s.exp() for s in row).log() ** 2 / num_tokens
    elif isinstance(spec, Relu):
        for layer in layers:
            for e in range(num_experts):
                column = [row[e] for row in layer.gates if row[e] is not None]
                added = num_experts / (spec.k * num_tokens**2) * sum(column) * len(column)
                total = total + spec.balance_start * added / len(layers)
    elif isinstance(spec, RoutingFree):
        rows = [[g for layer in layers for g in layer.gates[t]] for t in range(num_tokens)]  # (T, L·E)
        columns = [*zip(*rows, strict=True)]

        def product(line):
            active = [g for g in line if g is not None]
            return len(active) / len(line) * sum(active) / len(line)

        l_e = sum(map(product, columns)) / len(columns)
        l_t = sum(map(product, rows)) / num_tokens
        total = total + spec.balance_start * (spec.expert_share * l_e + (1 - spec.expert_share) * l_t)
    return total


# --- The cases -------------------------------------------------------------------------------------------


@st.composite
def gate_specs(draw, name, num_experts, dim, layers):
    fixed_k = {"k": draw(st.integers(1, num_experts)), "renormalize": draw(st.booleans())}
    coefficient = st.sampled_from([0.0, 0.3])
    match name:
        case "topk":
            return TopK(**fixed_k, balance=draw(coefficient), z_loss=draw(coefficient))
        case "bias":
            return TopK(**fixed_k, balance=draw(coefficient), bias_rate=0.05)
        case "self":
            one = st.integers(0, dim - num_experts)
            offset = draw(st.one_of(st.none(), one, st.tuples(*[one] * layers)))
            return SelfRouting(**fixed_k, offset=offset)
        case "residual":
            return SelfRouting(**fixed_k, input="residual")
        case "fixed" | "hash":
            return Random(**fixed_k, source=name)
        case "aoe":
            return AutonomyOfExperts(**fixed_k, balance=draw(coefficient))
        case "relu":
            return Relu(k=fixed_k["k"], balance_start=0.7)
        case "routing_free":
            return RoutingFree(
                threshold=draw(st.floats(0.2, 2)),
                temperature=draw(st.floats(0.5, 2)),
                norm=draw(st.sampled_from(["l1", "l2", "linf"])),
                expert_share=draw(st.floats(0, 1)),
                balance_start=0.7,
            )
        case "expert_choice":
            factor = draw(st.floats(0.1, num_experts))
            return ExpertChoice(capacity_factor=factor, group=draw(st.sampled_from(["sequence", "batch"])))
        case "soft":
            return Soft(slots=draw(st.integers(1, 3)), normalize=draw(st.booleans()))


@st.composite
def cases(draw, name):
    """A model of MoE layers, its spec, its activation's name, and x (B, N, D)."""
    num_experts = draw(st.integers(1, 6))
    dim = draw(st.integers(num_experts if name in ("self", "residual") else 1, 8))
    sequences, size = draw(st.sampled_from([(b, n) for b in range(1, 4) for n in range(1, 13) if b * n <= 12]))
    layers = draw(st.integers(1, 2))
    low_rank = LowRankGlu(hidden=draw(st.integers(1, 5)), rank=draw(st.integers(1, 3)))
    kinds = [Mlp(hidden=low_rank.hidden), Glu(hidden=low_rank.hidden), low_rank]
    spec = MoESpec(
        gate=draw(gate_specs(name, num_experts, dim, layers)),
        experts=low_rank if name in ("aoe", "routing_free") else draw(st.sampled_from(kinds)),
        num_experts=num_experts,
        shared_experts=draw(st.integers(0, 2)),
        dispatch=draw(st.sampled_from(["reference", "grouped", "tiled"])),
    )
    activation = draw(st.sampled_from([*ACTIVATIONS]))
    return spec, layers, activation, (sequences, size, dim), draw(st.integers(0, 2**32))


def build_model(spec, layers, activation, shape, seed):
    """Layers whose every value is drawn anew, so that no scale is 1 and no bias 0; and x."""
    generator = torch.Generator().manual_seed(seed)
    norms = [nn.RMSNorm(shape[2], eps=1e-6) for _ in range(layers)]
    host = {"dim": shape[2], "hidden": 4, "activation": ACTIVATIONS[activation](), "bias": True, "tokens": shape[1]}
    host |= {"std_in": 1.0, "std_out": 1.0}
    model = nn.Sequential(*[build_moe(spec, HostMlp(norm=norm, **host), i) for i, norm in enumerate(norms)]).double()
    for name, parameter in model.named_parameters():
        parameter.data.normal_(std=0.6, generator=generator)
        if name.endswith(("scale", "norm.weight")):
            parameter.data.add_(1.5)
    for layer in model:
        if isinstance(spec.gate, TopK) and spec.gate.bias_rate:
            layer.gate.bias_steps.random_(-8, 8, generator=generator)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    return model, x


def agree(what, got, wanted, largest):
    error, bound = number((got - wanted).abs().max()), RELATIVE * number(wanted.abs().max()) + CANCELLED * largest
    assert error <= bound, f"{what}: {error} off, {bound} allowed"


@pytest.mark.parametrize("name", GATES)
def test_a_layer_is_its_formulas(name):
    seen = set()

    @settings(
        max_examples=15,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
    )
    @given(cases(name))
    def check(case):
        spec, layers, activation, shape, seed = case
        model, x = build_model(spec, layers, activation, shape, seed)
        balance = balance_for(model)
        probe = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        parameters = {key: p for key, p in model.named_parameters() if p.requires_grad}
        leaves = [x.requires_grad_(), *parameters.values()]

        with record(model) as routings:
            y = model(x)
            added = balance(routings)
            active = [routing.active for routing in routings.values()]
        gradients = torch.autograd.grad((y * probe).sum() + added, leaves)

        expected = [
            Layer(
                spec=spec,
                activation=activation,
                weights=dict(layer.named_parameters()),
                bias_steps=[]
                if spec.gate.kind != "topk" or not spec.gate.bias_rate
                else layer.gate.bias_steps.tolist(),
                hashed=active[i].tolist(),
                number=i,
            )
            for i, layer in enumerate(model)
        ]
        wanted_y = x
        for layer in expected:
            wanted_y = routed(layer, wanted_y)
        wanted_added = balance_loss(expected)
        value = (wanted_y * probe).sum() + wanted_added + 0 * x.sum()  # nothing else where no pair is active
        wanted = torch.autograd.grad(value, leaves, allow_unused=True)
        wanted = [torch.zeros_like(v) if g is None else g for g, v in zip(wanted, leaves, strict=True)]

        agree("y", y, wanted_y, number(wanted_y.abs().max()))
        agree("balance loss", torch.as_tensor(added, dtype=torch.float64), wanted_added, 1.0)
        largest = max(number(gradient.abs().max()) for gradient in wanted)
        for key, got, gradient in zip(["x", *parameters], gradients, wanted, strict=True):
            agree(key, got, gradient, largest)
        for layer, found in zip(expected, active, strict=True):
            if layer.gates:
                assert found.tolist() == [[g is not None for g in row] for row in layer.gates]
        if name == "hash":
            assert all((found.sum(1) == spec.gate.k).all() for found in active)
        seen.add((spec.experts.kind, spec.shared_experts, layers, spec.dispatch))

    check()
    assert len(seen) >= 5  # not the same case again and again
