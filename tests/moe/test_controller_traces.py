"""A controller's coefficient over 200 steps, on the same tokens split over micro-batches and processes.

What a controller steps by are counts, which add up exactly: shown in a loop where λ moves the scores and nothing else
does. The losses that it weighs are taken over a forward's tokens, as published. The token balancing of Routing-Free
(μ = 0) adds up over micro-batches too, so there a whole training is the same however its tokens are split; expert
balancing and ReMoE's loss multiply loads by weights within a micro-batch, so there the trained weights, and in the end
λ, depend on its size.
"""

from itertools import pairwise

import pytest
import torch
from small_moe import DIM, balance_of, build, tokens
from together import together
from torch.distributed import destroy_process_group, get_rank, init_process_group
from torch.nn.parallel import DistributedDataParallel

from vmoe.moe import MoESpec, Relu, RoutingFree, balance_for, record
from vmoe.moe.routing import route_positive, route_threshold

STEPS = 200


class Loop:
    """Random scores that sink as λ grows: the density follows λ, and λ the density."""

    def __init__(self, gate):
        self.gate = gate
        self.balance = balance_of(gate)

    def run(self, steps, *, micro_batches, rank=0, world=1):
        """λ after each of the steps, given by their numbers."""
        trace = []
        for step in steps:
            scores = torch.rand(8, 9, 4, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
            scores = scores - 0.3 * (self.balance.coefficient / self.gate.balance_start).log10()
            for part in scores.chunk(world)[rank].chunk(micro_batches):
                flat, shape = part.flatten(0, 1), part.shape[:2]
                is_relu = isinstance(self.gate, Relu)
                routing = route_positive(flat, shape) if is_relu else route_threshold(flat, 0.4, shape)
                self.balance({"layer": routing})
            self.balance.step()
            trace.append(float(self.balance.coefficient))
        return trace

    def state(self):
        return {"balance": self.balance.state_dict()}

    def load(self, state):
        for name, value in state.items():
            getattr(self, name).load_state_dict(value)


class Training(Loop):
    """Adam on the outputs of a teacher of the same kind, in float64: 8 sequences of 9 tokens a step."""

    def __init__(self, gate):
        spec = MoESpec(gate=gate, num_experts=4)
        self.layer, self.teacher = build(spec).double(), build(spec, seed=1).double()
        self.balance = balance_for(self.layer)
        self.optimizer = torch.optim.Adam(self.layer.parameters(), lr=0.01)

    def run(self, steps, *, micro_batches, rank=0, world=1):
        network = self.layer if world == 1 else DistributedDataParallel(self.layer)
        trace = []
        for step in steps:
            sequences = tokens(8, 9, DIM, seed=step % 7, dtype=torch.float64).chunk(world)[rank]
            for part in sequences.chunk(micro_batches):
                with record(self.layer) as routings:
                    y = network(part)
                loss = (y - self.teacher(part).detach()).square().mean() + self.balance(routings)
                (loss / micro_batches).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.balance.step()
            trace.append(float(self.balance.coefficient))
        return trace

    def state(self):
        return {name: getattr(self, name).state_dict() for name in ("layer", "balance", "optimizer")}


CASES = {
    "relu, scores moved by λ": (Loop, Relu(balance_start=1e-4)),
    "routing_free, scores moved by λ": (Loop, RoutingFree(balance_start=1e-4, balance_rate=0.2)),
    "routing_free, trained": (
        Training,
        RoutingFree(balance_start=0.1, balance_rate=0.3, target_density=0.5, expert_share=0.0),
    ),
}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return request.param


def create(case):
    kind, gate = CASES[case]
    return kind(gate)


@pytest.fixture(scope="module")
def whole(case):
    """The trace of one process with one micro-batch."""
    return create(case).run(range(STEPS), micro_batches=1)


def exactly(trace):
    return pytest.approx(trace, rel=1e-6, abs=0)  # float32 rounding


def test_the_trace_goes_up_and_down(whole):
    turns = sum((b > a) != (c > b) for (a, b), (_, c) in pairwise(pairwise(whole)))
    assert turns > 10


def test_four_micro_batches(case, whole):
    assert create(case).run(range(STEPS), micro_batches=4) == exactly(whole)


def test_a_checkpoint_in_the_middle(case, whole):
    first, second = create(case), create(case)
    before = first.run(range(STEPS // 2), micro_batches=1)
    second.load(first.state())
    assert before + second.run(range(STEPS // 2, STEPS), micro_batches=1) == whole


def run_process(folder):
    init_process_group("gloo")
    rank = get_rank()
    traces = {case: create(case).run(range(STEPS), micro_batches=2, rank=rank, world=2) for case in CASES}
    torch.save(traces, f"{folder}/traces{rank}.pt")
    destroy_process_group()


@pytest.fixture(scope="module")
def of_two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    together(2, folder, run_process, str(folder))
    return [torch.load(folder / f"traces{rank}.pt") for rank in range(2)]


def test_two_processes_with_two_micro_batches(case, whole, of_two_processes):
    first, second = (traces[case] for traces in of_two_processes)
    assert first == second == exactly(whole)
