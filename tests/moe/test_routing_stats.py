"""Every figure against its definition, written out in plain Python."""

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_moe import build
from torch import nn
from two_processes import TwoProcesses

from vmoe.moe import LoadStats, MoESpec, Random, Routing, RoutingStats, mean_figures
from vmoe.moe.routing import route_slots

settings.register_profile("stats", max_examples=40, deadline=None)
NUM_LABELS = 3


def host(num_experts=4, layers=1):
    """A model with MoE layers of so many experts, named "0", "1" …"""
    spec = MoESpec(gate=Random(k=1, source="hash"), num_experts=num_experts)
    return nn.ModuleList(build(spec, host_hidden=8) for _ in range(layers))


def routing(active, weights=None, batch=1):
    active = torch.as_tensor(active)
    weights = active.float() if weights is None else torch.where(active, weights, 0)
    return Routing(active, weights, weights, None, torch.Size([batch, len(active) // batch]))


def random_routing(batch, per_sequence, num_experts, seed, density=0.4):
    generator = torch.Generator().manual_seed(seed)
    active = torch.rand(batch * per_sequence, num_experts, generator=generator) < density
    weights = torch.rand(batch * per_sequence, num_experts, generator=generator).square() * 3  # of any precision
    return routing(active, weights, batch)


def figures(*updates, num_experts=None, num_labels=NUM_LABELS):
    """Figures of one layer after (routing, labels) updates."""
    num_experts = num_experts or updates[0][0].num_experts
    stats = RoutingStats(host(num_experts), num_labels)
    for one, labels in updates:
        stats.update({"0": one}, None if labels is None else torch.tensor(labels, dtype=torch.int64))
    return stats.figures()["0"]


def entropy(values):
    total = sum(values)
    return -sum(v / total * math.log(v / total) for v in values if v > 0)


def by_definition(active, weights, labels):
    """Section by section: load, entropy, token entropy, balance, dead, density, mass, co-activation, information.

    active, weights: lists of lists; labels: of every token.
    """
    num_tokens, num_experts = len(active), len(active[0])
    experts, tokens = range(num_experts), range(num_tokens)
    n = [sum(active[t][e] for t in tokens) for e in experts]
    mass = [sum(weights[t][e] for t in tokens) for e in experts]
    load = [n_e / sum(n) for n_e in n]
    mean = sum(load) / num_experts
    joint = {(c, e): sum(active[t][e] for t in tokens if labels[t] == c) for c in range(NUM_LABELS) for e in experts}
    p_label = [sum(joint[c, e] for e in experts) / sum(n) for c in range(NUM_LABELS)]
    information = sum(
        count / sum(n) * math.log2(count / sum(n) / (p_label[c] * load[e])) for (c, e), count in joint.items() if count
    )
    return {
        "entropy": entropy(n) / math.log(num_experts),
        "token_entropy": sum(entropy(w) for w in weights if sum(w)) / num_tokens / math.log(num_experts),
        "load_cv": math.sqrt(sum((p - mean) ** 2 for p in load) / num_experts) / mean,
        "load_max": max(load),
        "load_max_ratio": max(load) / mean,
        "load_min_ratio": min(load) / mean,
        "dead": sum(n_e == 0 for n_e in n) / num_experts,
        "nearly_dead": sum(p < 0.01 / num_experts for p in load) / num_experts,
        "density": sum(n) / (num_tokens * num_experts),
        "load": load,
        "gate_mass": [m / sum(mass) for m in mass],
        "experts_per_token": [sum(sum(row) == i for row in active) for i in range(num_experts + 1)],
        "co_activation": [
            [sum(active[t][i] and active[t][j] for t in tokens) / num_tokens for j in experts] for i in experts
        ],
        "label_information": information,
        "label_information_share": information * math.log(2) / (entropy(n) or 1),
    }


@settings(settings.get_profile("stats"))
@given(st.integers(1, 4), st.integers(1, 5), st.integers(2, 6), st.sampled_from([0.1, 0.4, 1.0]), st.integers(0, 2**31))
def test_every_figure_is_its_definition(batch, per_sequence, num_experts, density, seed):
    one = random_routing(batch, per_sequence, num_experts, seed, density)
    labels = torch.randint(NUM_LABELS, (batch,), generator=torch.Generator().manual_seed(seed)).tolist()
    if not one.active.any():
        return
    found = figures((one, labels))
    token_labels = [label for label in labels for _ in range(per_sequence)]
    expected = by_definition(one.active.tolist(), one.weights.tolist(), token_labels)
    for name, value in expected.items():
        got = getattr(found, name)
        if name == "co_activation":
            got, value = [x for row in got for x in row], [x for row in value for x in row]
        # gate weights and token entropies are kept in units of 2⁻²⁴ = 6e-8
        assert got == pytest.approx(value, rel=1e-5, abs=1e-6), name


def test_by_hand():
    # loads 3, 1, 0, 0 of 4; weights (1, 1), (2), (1), so mass 4, 1 of 5
    one = routing(
        [[True, True, False, False], [True, False, False, False], [True, False, False, False]],
        torch.tensor([[1.0, 1, 0, 0], [2, 0, 0, 0], [1, 0, 0, 0]]),
    )
    found = figures((one, None))
    assert found.load == (0.75, 0.25, 0, 0)
    assert found.gate_mass == (0.8, 0.2, 0, 0)
    # ¾ ln 4/3 + ¼ ln 4 = ln 4 − ¾ ln 3
    assert found.entropy == pytest.approx((math.log(4) - 0.75 * math.log(3)) / math.log(4))
    # 4/3 experts a token: at least one with ¾ of the pairs and one with ¼, which is what this is
    assert found.entropy_min == pytest.approx(found.entropy)
    assert found.token_entropy == pytest.approx(math.log(2) / 3 / math.log(4), rel=1e-6)  # ln 2, 0 and 0
    # deviations from ¼: ½, 0, −¼, −¼; √((¼ + 0 + 1/16 + 1/16) / 4) / ¼
    assert found.load_cv == pytest.approx(math.sqrt(0.375 / 4) * 4)
    assert (found.load_max, found.load_max_ratio, found.load_min_ratio) == (0.75, 3, 0)
    assert (found.dead, found.nearly_dead) == (0.5, 0.5)
    assert found.density == 4 / 12
    assert found.experts_per_token == (0, 2, 1, 0, 0)
    assert found.co_activation == ((1, 1 / 3, 0, 0), (1 / 3, 1 / 3, 0, 0), (0,) * 4, (0,) * 4)
    assert found.label_information is found.label_information_share is None


def test_nearly_dead_is_below_a_hundredth_of_the_fair_share():
    # of 1,000 pairs on 2 experts the fair share is 500; 5 is a hundredth, 4 is less
    for count, nearly_dead in [(5, 0.0), (4, 0.5)]:
        first = torch.arange(1000) < count
        found = figures((routing(torch.stack([first, ~first], 1)), None))
        assert (found.nearly_dead, found.dead) == (nearly_dead, 0)


@settings(settings.get_profile("stats"))
@given(st.lists(st.integers(1, 3), min_size=1, max_size=5), st.integers(0, 2**31))
def test_the_same_tokens_give_the_same_figures_in_any_batches_and_order(sizes, seed):
    """Equal to the last bit: counts are integers."""
    per_sequence, batch = 4, sum(sizes)
    whole = random_routing(batch, per_sequence, 5, seed)
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(NUM_LABELS, (batch,), generator=generator).tolist()
    parts, start = [], 0
    for size in sizes:
        rows = slice(start * per_sequence, (start + size) * per_sequence)
        parts.append((routing(whole.active[rows], whole.weights[rows], size), labels[start : start + size]))
        start += size
    expected = figures((whole, labels))
    assert figures(*parts) == expected
    assert figures(*parts[::-1]) == expected


@pytest.mark.parametrize("positions", [False, True])
@pytest.mark.parametrize("sequences_here", [0, 1, 3])
def test_processes_change_nothing(monkeypatch, sequences_here, positions):
    """Both have the figures of all; one of them may have counted nothing."""
    whole, labels, model = random_routing(3, 4, 5, seed=0), torch.tensor([0, 2, 2]), host(5)
    here, there, alone = (RoutingStats(model, NUM_LABELS, positions=positions) for _ in range(3))
    alone.update({"0": whole}, labels)
    for stats, sequences in (here, slice(0, sequences_here)), (there, slice(sequences_here, 3)):
        if count := len(labels[sequences]):
            rows = slice(sequences.start * 4, sequences.stop * 4)
            stats.update({"0": routing(whole.active[rows], whole.weights[rows], count)}, labels[sequences])
    TwoProcesses(monkeypatch).run(here.all_reduce, there.all_reduce)
    for stats in (here, there):
        assert stats.figures() == alone.figures()
        for name, expected in alone.layers["0"].tensors().items():
            assert torch.equal(stats.layers["0"].tensors()[name], expected), name


def test_loads_of_processes_add_up(monkeypatch):
    model, stats = host(5, layers=2), []
    for seed in (0, 1):
        one = LoadStats(model)
        one.update({name: random_routing(2, 3, 5, seed + 10 * int(name)) for name in "01"})
        stats.append(one)
    counted = [[one.layers[name].pairs.clone() for one in stats] for name in "01"]
    TwoProcesses(monkeypatch).run(*(one.all_reduce for one in stats))
    for one in stats:
        for name in "01":
            assert torch.equal(one.layers[name].pairs, sum(counted[int(name)]))
            assert int(one.layers[name].tokens) == 12


@settings(settings.get_profile("stats"))
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**31))
def test_loads_are_those_of_all_statistics(forwards, batch, num_experts, seed):
    """In any number of forwards; and after `clear`, of what came since."""
    model = host(num_experts)
    light, full = LoadStats(model), RoutingStats(model)
    light.update({"0": random_routing(2, 3, num_experts, seed)})
    light.clear()
    for number in range(forwards):
        one = {"0": random_routing(batch, 3, num_experts, seed + number)}
        light.update(one)
        full.update(one)
    found, expected = light.figures()["0"], full.figures()["0"]
    assert vars(found) == {name: getattr(expected, name) for name in vars(found)}


@settings(settings.get_profile("stats"))
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(0, 2**31))
def test_every_position_is_counted(lengths, seed):
    """By the definition, over sequences of several lengths and tokens of which only some count."""
    num_experts, batch = 3, 2
    generator = torch.Generator().manual_seed(seed)
    stats = RoutingStats(host(num_experts), positions=True)
    pairs = [[0] * num_experts for _ in range(max(lengths))]
    tokens = [0] * max(lengths)
    for number, length in enumerate(lengths):
        one = random_routing(batch, length, num_experts, seed + number)
        counted = torch.rand(batch * length, generator=generator) < 0.7
        stats.update({"0": one}, counted=counted)
        for token in range(batch * length):
            if counted[token]:
                tokens[token % length] += 1
                for expert in range(num_experts):
                    pairs[token % length][expert] += int(one.active[token, expert])
    assert stats.layers["0"].pairs_by_position.tolist() == pairs
    assert stats.layers["0"].tokens_by_position.tolist() == tokens
    assert stats.layers["0"].positions == torch.Size([max(lengths)])


def test_loads_of_labels_and_of_positions():
    """Two images of three tokens, of labels 2 and 0; expert 0 serves the first token of each, and more of label 2."""
    active = torch.tensor([[1, 0], [1, 1], [0, 0], [1, 0], [0, 1], [0, 1]], dtype=torch.bool)
    stats = RoutingStats(host(2), NUM_LABELS, positions=True)
    stats.update({"0": routing(active, batch=2)}, torch.tensor([2, 0]))
    counts = stats.layers["0"]
    assert counts.label_load().tolist() == [[1 / 3, 2 / 3], [0, 0], [2 / 3, 1 / 3]]
    assert counts.position_load().tolist() == [[1, 0], [0.5, 1], [0, 0.5]]


def test_positions_of_rows_and_columns():
    """(B, H, W) tokens: row by row; another shape is refused, since its positions would be others."""
    active = torch.eye(6, dtype=torch.bool).repeat(2, 1)
    grid = Routing(active, active.float(), active.float(), None, torch.Size([2, 2, 3]))
    stats = RoutingStats(host(6), positions=True)
    stats.update({"0": grid})
    assert stats.layers["0"].pairs_by_position.tolist() == (2 * torch.eye(6, dtype=torch.int64)).tolist()
    assert stats.layers["0"].positions == torch.Size([2, 3])
    turned = Routing(active, active.float(), active.float(), None, torch.Size([2, 3, 2]))
    with pytest.raises(ValueError, match=r"sequences have shape \(3, 2\) after \(2, 3\); allowed: one shape"):
        stats.update({"0": turned})


@pytest.mark.parametrize(("num_experts", "k"), [(2, 1), (8, 1), (8, 2), (8, 8), (5, 3)])
def test_entropy_min_of_fixed_k(num_experts, k):
    collapsed = torch.zeros(6, num_experts, dtype=torch.bool)
    collapsed[:, :k] = True
    found = figures((routing(collapsed), None))
    assert found.entropy_min == pytest.approx(math.log(k) / math.log(num_experts))
    assert found.entropy == pytest.approx(found.entropy_min)


def test_entropy_min_is_the_least_over_all_routings_of_a_density():
    """All 2⁹ routings of 3 tokens to 3 experts."""
    least, reported = {}, {}
    for bits in product([False, True], repeat=9):
        loads = [sum(bits[e::3]) for e in range(3)]
        pairs = sum(loads)
        if pairs:
            least[pairs] = min(least.get(pairs, math.inf), entropy(loads) / math.log(3))
    for pairs in least:
        one = routing((torch.arange(9) < pairs).view(3, 3))
        reported[pairs] = figures((one, None)).entropy_min
    assert reported == pytest.approx(least)


def test_an_expert_of_its_own_for_each_label():
    one = routing(torch.eye(3, dtype=torch.bool).repeat_interleave(4, 0), batch=3)
    found = figures((one, [2, 0, 1]))
    assert found.label_information == pytest.approx(math.log2(3))
    assert found.label_information_share == pytest.approx(1)


def test_labels_that_share_their_experts_alike():
    one = routing(torch.eye(3, dtype=torch.bool).repeat(3, 1), batch=3)
    found = figures((one, [0, 1, 2]))
    assert found.label_information == pytest.approx(0, abs=1e-12)
    assert found.label_information_share == pytest.approx(0, abs=1e-12)


def test_a_label_for_each_token():
    """What a sequence's label gives is what as many labels of its tokens give."""
    one = random_routing(3, 4, 5, seed=0)
    assert figures((one, [2, 0, 1])) == figures((one, [2] * 4 + [0] * 4 + [1] * 4))
    alternating = routing(torch.eye(2, dtype=torch.bool).repeat(3, 1), batch=2)
    assert figures((alternating, [0, 1] * 3)).label_information == pytest.approx(1)


def test_labels_that_do_not_fit_the_tokens():
    with pytest.raises(ValueError, match="there are 5 labels for 12 tokens; allowed: one for each group of equally"):
        figures((random_routing(3, 4, 5, seed=0), [0] * 5))


@settings(settings.get_profile("stats"))
@given(st.lists(st.booleans(), min_size=12, max_size=12), st.integers(0, 2**31))
def test_only_the_tokens_that_count_are_counted(counted, seed):
    """As if the forward had had no others."""
    whole = random_routing(3, 4, 5, seed)
    labels = torch.randint(NUM_LABELS, (12,), generator=torch.Generator().manual_seed(seed))
    chosen = torch.tensor(counted)
    stats = RoutingStats(host(5), NUM_LABELS)
    stats.update({"0": whole}, torch.where(chosen, labels, -100), counted=chosen)
    alone = routing(whole.active[chosen], whole.weights[chosen])
    assert stats.figures()["0"] == figures((alone, labels[chosen].tolist()))
    stats = RoutingStats(host(5))
    stats.update({"0": whole}, counted=chosen)
    assert stats.figures()["0"] == figures((alone, None))


def test_what_cannot_be_counted_in_part():
    whole, stats = random_routing(3, 4, 5, seed=0), RoutingStats(host(5), NUM_LABELS)
    with pytest.raises(ValueError, match=r"counted is of 12 tokens, and there are \{'labels': 3\}"):
        stats.update({"0": whole}, torch.tensor([0, 1, 2]), counted=torch.ones(12, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"counted is of 3 tokens, and there are \{'0': 12\}"):
        stats.update({"0": whole}, counted=torch.ones(3, dtype=torch.bool))
    mixed = route_slots(torch.randn(3, 4, 5, 2), torch.Size([3, 4]))
    with pytest.raises(ValueError, match="this Routing has slots"):
        stats.update({"0": mixed}, counted=torch.ones(12, dtype=torch.bool))


def test_labels_for_some_batches_only():
    """Information and its share are about the labelled pairs; the rest still counts for the load."""
    labelled = routing(torch.eye(2, dtype=torch.bool), batch=2)
    unlabelled = routing(torch.tensor([[True, False]] * 50))
    found = figures((labelled, [0, 1]), (unlabelled, None))
    assert found.label_information == pytest.approx(1)
    assert found.label_information_share == pytest.approx(1)
    assert found.load == (51 / 52, 1 / 52)


@pytest.mark.parametrize("updates", [[], [(routing(torch.zeros(4, 3, dtype=torch.bool)), [1])]])
def test_nothing_active(updates):
    found = figures(*updates, num_experts=3)
    assert (found.dead, found.nearly_dead) == (1, 1)
    zero = ("entropy", "entropy_min", "token_entropy", "load_cv", "load_max", "load_max_ratio", "density")
    assert [getattr(found, name) for name in zero] == [0] * len(zero)
    assert found.load == found.gate_mass == (0, 0, 0)
    assert found.experts_per_token == (4 * len(updates), 0, 0, 0)
    assert found.label_information is None


def test_a_single_expert():
    found = figures((routing(torch.tensor([[True], [False]])), [1]))
    assert (found.entropy, found.token_entropy, found.entropy_min, found.load_cv) == (0, 0, 0, 0)
    assert found.load_max_ratio == found.load_min_ratio == 1
    assert found.density == 0.5
    assert found.label_information_share == 0


def test_layers_are_counted_apart():
    stats = RoutingStats(host(layers=2))
    stats.update({"0": routing(torch.ones(2, 4, dtype=torch.bool)), "1": routing(torch.zeros(2, 4, dtype=torch.bool))})
    found = stats.figures()
    assert {name: one.density for name, one in found.items()} == {"0": 1, "1": 0}
    assert mean_figures(found)["density"] == 0.5
    assert mean_figures(found)["label_information"] is None


def test_the_mean_over_layers():
    stats = RoutingStats(host(layers=2), NUM_LABELS)
    for seed, name in enumerate("01"):
        stats.update({name: random_routing(2, 6, 4, seed)}, torch.tensor([0, 1]))
    found = stats.figures()
    for name, mean in mean_figures(found).items():
        assert mean == pytest.approx((getattr(found["0"], name) + getattr(found["1"], name)) / 2)


def test_the_mean_of_no_layer():
    assert set(mean_figures({}).values()) == {None}
    assert RoutingStats(nn.Linear(2, 2)).figures() == {}
