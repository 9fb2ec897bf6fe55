"""From a spec to a layer: the one place that knows which class computes which spec."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from .dispatch import DispatchOptions
from .experts import Activation, Experts, GluExperts, LowRankGluExperts, MlpExperts
from .gates import (
    AutonomyOfExpertsGate,
    ExpertChoiceGate,
    FixedRandomGate,
    Gate,
    HashGate,
    ReluGate,
    RoutingFreeGate,
    SelfGate,
    SoftGate,
    TopKGate,
)
from .layer import DenseExperts, MoE
from .spec import (
    AutonomyOfExperts,
    Dense,
    ExpertChoice,
    ExpertSpec,
    GateSpec,
    Glu,
    Mlp,
    MoESpec,
    Random,
    Relu,
    RoutingFree,
    SelfRouting,
    Soft,
    TopK,
)
from .upcycle import DenseMlp, distinct_experts, divide_output, expected_weight, hidden_width, typical_tokens, upcycle
from .widths import Budget, expert_budget, expert_widths

TOKENS = 256  # of the random sequences that tell how an upcycled layer's gate weighs, where N is not known


@dataclass(frozen=True)
class HostMlp:
    """What a MoE layer takes over from the MLP it replaces.

    std_in, std_out: standard deviations of the weights of the first and of the second layer at the start.
    dropout_hidden, dropout_out: the two dropout rates.
    norm: whose output the MLP reads, where that is known.
    tokens: of a sequence, where that is known.
    dense: the MLP itself, to upcycle; gate_slope: the factor of a GLU's gate projection then.
    """

    dim: int
    hidden: int
    activation: Activation
    bias: bool
    std_in: float
    std_out: float
    dropout_hidden: float = 0.0
    dropout_out: float = 0.0
    norm: nn.Module | None = None
    tokens: int | None = None
    dense: DenseMlp | None = None
    gate_slope: float = 1.0


def build_gate(spec: GateSpec, dim: int, num_experts: int, *, layer: int = 0, tokens: int | None = None) -> Gate:
    """The gate that computes a spec. Raises `ValueError` where it cannot work at this width.

    layer: the number of the MoE layer among the model's. tokens: of a sequence, which Soft MoE needs for its slots.
    """
    match spec:
        case TopK():
            return TopKGate(dim, num_experts, spec)
        case SelfRouting():
            return SelfGate(dim, num_experts, spec, layer)
        case Random(source="fixed"):
            return FixedRandomGate(dim, num_experts, spec)
        case Random():
            return HashGate(num_experts, spec)
        case AutonomyOfExperts():
            return AutonomyOfExpertsGate(spec)
        case Relu():
            return ReluGate(dim, num_experts, spec)
        case RoutingFree():
            return RoutingFreeGate(num_experts, spec)
        case ExpertChoice():
            return ExpertChoiceGate(dim, num_experts, spec)
        case Soft():
            if spec.slots is None and tokens is None:
                raise ValueError("gate.slots is null; allowed: a number, where the tokens of a sequence are not known")
            return SoftGate(dim, num_experts, spec.slots_for(num_experts, tokens or 0), spec)
    raise ValueError("gate.kind is 'dense', which has no gate; allowed: every other kind")


def build_experts(spec: ExpertSpec, host: HostMlp, num_experts: int, budget: Budget) -> Experts:
    """Experts of a spec with weights drawn afresh."""
    hidden, rank = expert_widths(spec, dim=host.dim, host_hidden=host.hidden, budget=budget)
    size = (num_experts, host.dim, hidden)
    dropout = host.dropout_hidden if spec.dropout is None else spec.dropout
    experts: Experts
    if isinstance(spec, Mlp):
        experts = MlpExperts(*size, host.activation, bias=host.bias, dropout=dropout)
    elif isinstance(spec, Glu):
        experts = GluExperts(*size, host.activation, dropout=dropout)
    else:
        experts = LowRankGluExperts(*size, rank, host.activation, dropout=dropout)
    experts.reset_parameters(host.std_in, host.std_out)
    return experts


def build_moe(spec: MoESpec, host: HostMlp, layer: int = 0, *, weights_follow: bool = False) -> MoE:
    """A MoE layer in place of one host MLP, its weights drawn afresh or, with ``init: upcycle``, made of the MLP's.

    Experts and gate draw from generators of their own, seeded by torch's global one, so that the experts of one seed
    are the same whatever the gate. layer: the number of the MoE layer among the model's. weights_follow: the caller
    loads weights into the layer next, so that nothing is upcycled.

    Raises `ValueError`: the gate is dense or does not fit the width, widths cannot match the host's compute, or experts
    cannot be made of the MLP.
    """
    if isinstance(spec.gate, Dense) or spec.experts is None:
        raise ValueError("gate.kind is 'dense'; allowed: a gate that routes, for a model with MoE layers")
    budget = expert_budget(
        spec.gate.active_experts(spec.num_experts, host.tokens),
        num_experts=spec.num_experts,
        shared_experts=spec.shared_experts,
        scores_features=spec.gate.SCORES_FEATURES,
    )
    seeds = torch.randint(2**62, (4,), device="cpu").tolist()
    shared = None
    with seeded(seeds[0]):
        experts = build_experts(spec.experts, host, spec.num_experts, budget)
    with seeded(seeds[1]):
        if spec.shared_experts:
            shared = build_experts(spec.experts, host, spec.shared_experts, budget)
    with seeded(seeds[2]):
        gate = build_gate(spec.gate, host.dim, spec.num_experts, layer=layer, tokens=host.tokens)
    if spec.init == "upcycle" and not weights_follow:
        with seeded(seeds[3]):
            upcycle_layer(spec, host, experts, shared, gate)
    elif isinstance(gate, RoutingFreeGate):
        assert isinstance(experts, LowRankGluExperts), "MoESpec allows no other experts for this gate"
        gain, shift = getattr(host.norm, "weight", None), getattr(host.norm, "bias", None)
        gate.calibrate(experts.gate_down.weight, gain, shift)
    if reads_residual(spec.gate) and host.norm is None:
        raise ValueError("gate.input is 'residual'; allowed: normed, for blocks whose norm before the MLP is not known")
    return MoE(
        gate,
        experts,
        shared=shared,
        norm=host.norm if reads_residual(spec.gate) else None,
        dispatch=DispatchOptions(spec.dispatch, spec.recompute, spec.capacity),
        dropout=host.dropout_out,
    )


def upcycle_layer(spec: MoESpec, host: HostMlp, experts: Experts, shared: Experts | None, gate: Gate) -> None:
    """Make all experts of a layer of the host's MLP, so that a token's weighted sum stands for it at the start.

    Raises `ValueError`: no MLP, one narrower than the experts, or experts alike that would choose themselves alike.
    """
    dense = dense_of(host)
    routed_units = spec.num_experts * hidden_width(experts)
    upcycle(experts, dense, gate_slope=host.gate_slope, noise=spec.upcycle_noise)
    if shared is not None:
        upcycle(shared, dense, gate_slope=host.gate_slope, first_unit=routed_units, noise=spec.upcycle_noise)
    if gate.scores_features and distinct_experts(experts, dense) < spec.num_experts and not spec.upcycle_noise:
        raise ValueError(
            f"upcycle_noise is {spec.upcycle_noise}; allowed: more than 0 for {spec.num_experts} experts of which only"
            f" {distinct_experts(experts, dense)} differ, with {spec.gate.kind}: equal experts would score, and be"
            " chosen, and learn, alike"
        )
    if dense.fc1.weight.is_meta:
        return  # there are no values to measure
    tokens = typical_tokens(host.norm, host.dim, host.tokens or TOKENS)
    features_TER = experts.features(tokens.normed.flatten(0, 1)) if gate.scores_features else None
    if isinstance(gate, RoutingFreeGate):
        assert features_TER is not None
        gate.calibrate_on(features_TER)
    seen_BND = tokens.before_norm if reads_residual(spec.gate) else tokens.normed
    total_weight = expected_weight(gate, seen_BND, features_TER) + spec.shared_experts
    for stack in [experts, *([shared] if shared is not None else [])]:
        divide_output(stack, total_weight)


def dense_of(host: HostMlp) -> DenseMlp:
    """The MLP to upcycle. Raises `ValueError` where there is none."""
    if host.dense is None:
        raise ValueError("init is 'upcycle'; allowed: fresh, where there is no MLP to make experts of")
    return host.dense


def reads_residual(spec: GateSpec) -> bool:
    """Whether the gate reads the residual stream, before the norm that the experts' input goes through."""
    return isinstance(spec, SelfRouting) and spec.input == "residual"


def build_dense(spec: MoESpec, host: HostMlp, *, weights_follow: bool = False) -> DenseExperts:
    """One expert in place of a host MLP, for every token: the dense row beside MoE rows with such experts.

    weights_follow: as in `build_moe`. Raises `ValueError` if the expert cannot be made of the MLP.
    """
    assert spec.experts is not None, "without experts the host keeps its MLP"
    experts = build_experts(spec.experts, host, 1, Budget(pairs=1, features=1, share=1))
    if spec.init == "upcycle" and not weights_follow:
        upcycle(experts, dense_of(host), gate_slope=host.gate_slope, noise=spec.upcycle_noise)
    return DenseExperts(experts, dropout=host.dropout_out)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from generators of that seed within, and leave the global ones as they were."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield
