"""From a spec to a layer: the one place that knows which class computes which spec."""

from __future__ import annotations

from dataclasses import dataclass

from .experts import Activation, Experts, GluExperts, LowRankGluExperts, MlpExperts
from .gates import FixedRandomGate, Gate, HashGate, RoutingFreeGate, SelfGate, TopKGate
from .layer import MoE
from .spec import Dense, ExpertSpec, GateSpec, Glu, LowRankGlu, Mlp, MoESpec, Random, RoutingFree, SelfRouting, TopK
from .widths import expert_widths


@dataclass(frozen=True)
class HostMlp:
    """What a MoE layer takes over from the MLP it replaces.

    std_in, std_out: standard deviations of the weights of the first and of the second layer at the start.
    dropout_hidden, dropout_out: the two dropout rates.
    """

    dim: int
    hidden: int
    activation: Activation
    bias: bool
    std_in: float
    std_out: float
    dropout_hidden: float = 0.0
    dropout_out: float = 0.0


def build_gate(spec: GateSpec, dim: int, num_experts: int) -> Gate:
    """The gate that computes a spec. Raises `ValueError` where it cannot work at this width."""
    if isinstance(spec, TopK):
        return TopKGate(dim, num_experts, spec)
    if isinstance(spec, SelfRouting):
        return SelfGate(dim, num_experts, spec)
    if isinstance(spec, Random):
        return (FixedRandomGate if spec.source == "fixed" else HashGate)(dim, num_experts, spec)
    if isinstance(spec, RoutingFree):
        return RoutingFreeGate(dim, num_experts, spec)
    raise ValueError("gate.kind is 'dense', which has no gate; allowed: every other kind")


def build_experts(spec: ExpertSpec, host: HostMlp, *, num_experts: int, active: float) -> Experts:
    """Experts of a spec with weights drawn afresh; active: experts a token is meant to use."""
    hidden, rank = expert_widths(spec, dim=host.dim, host_hidden=host.hidden, active=active, num_experts=num_experts)
    size = (num_experts, host.dim, hidden)
    experts: Experts
    if isinstance(spec, Mlp):
        experts = MlpExperts(*size, host.activation, bias=host.bias, dropout=host.dropout_hidden)
    elif isinstance(spec, Glu):
        experts = GluExperts(*size, host.activation, dropout=host.dropout_hidden)
    else:
        assert isinstance(spec, LowRankGlu)
        experts = LowRankGluExperts(*size, rank, host.activation, dropout=host.dropout_hidden)
    experts.reset_parameters(host.std_in, host.std_out)
    return experts


def build_moe(spec: MoESpec, host: HostMlp) -> MoE:
    """A MoE layer in place of one host MLP, its weights drawn afresh from torch's global generator.

    Raises `ValueError`: the gate is dense or does not fit the width, or widths cannot match the host's compute.
    """
    if isinstance(spec.gate, Dense) or spec.experts is None:
        raise ValueError("gate.kind is 'dense'; allowed: a gate that routes, for a model with MoE layers")
    gate = build_gate(spec.gate, host.dim, spec.num_experts)
    active = spec.gate.active_experts(spec.num_experts)
    experts = build_experts(spec.experts, host, num_experts=spec.num_experts, active=active)
    if isinstance(gate, RoutingFreeGate):
        assert isinstance(experts, LowRankGluExperts), "MoESpec allows no other experts for this gate"
        gate.calibrate(experts.gate_down.weight)
    return MoE(gate, experts, dispatch=spec.dispatch, dropout=host.dropout_out)
