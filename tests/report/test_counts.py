"""`routing.npz`: it keeps the counts, they add up, and what follows from them is its definition."""

from dataclasses import fields, replace

import numpy as np
import pytest
from run_folders import counts_of

from vmoe.report.counts import COUNTS, FORMAT, Counts, LayerCounts, read_arrays, read_counts, save_arrays, save_counts

NAMES = ("cat", "dög", "<eel>")
GRID = np.array([1, 2, 3])


def decisions(samples, positions=7, experts=4, layers=2, seed=0):
    """Of each layer weights (N, P, E), −1 where a pair is not active; and the labels (N, P)."""
    generator = np.random.default_rng(seed)
    weights = generator.random((layers, samples, positions, experts))
    labels_NP = np.repeat(generator.integers(0, len(NAMES), (samples, 1)), positions, axis=1)
    return [np.where(one < 0.5, -1, one) for one in weights], labels_NP


def counts(samples, **changes):
    return counts_of(*decisions(samples, **changes), NAMES, GRID)


def same(one: Counts, other: Counts) -> bool:
    return one.labels == other.labels and all(
        np.array_equal(getattr(one.layers[name], part.name), getattr(other.layers[name], part.name))
        for name in (*one.layers, *other.layers)
        for part in fields(LayerCounts)
    )


def test_a_file_holds_what_was_saved(tmp_path):
    path = save_counts(counts(3), tmp_path / "new" / COUNTS)
    assert same(read_counts(path), counts(3))
    assert [file.name for file in path.parent.iterdir()] == [COUNTS]


def test_counts_of_two_evaluations_are_those_of_one_over_both():
    """Weights and entropies but for their unit, since the made-up counts round a sum and not each token."""
    weights, labels_NP = decisions(5)
    first, second = (
        counts_of([one[rows] for one in weights], labels_NP[rows], NAMES, GRID) for rows in (slice(2), slice(2, 5))
    )
    summed = first + second
    for name, layer in counts_of(weights, labels_NP, NAMES, GRID).layers.items():
        for part in fields(LayerCounts):
            difference = np.abs(getattr(summed.layers[name], part.name) - getattr(layer, part.name))
            assert difference.max(initial=0) <= (1 if part.name in ("mass", "token_entropy") else 0), part.name


def test_longer_sequences_have_more_positions():
    short, long = counts(2, positions=3), counts(2, positions=5)
    layer = (short + long).layers["blocks.1.mlp"]
    assert layer.tokens_by_position.tolist() == [4, 4, 4, 2, 2]
    expected = long.layers["blocks.1.mlp"].pairs_by_position.copy()
    expected[:3] += short.layers["blocks.1.mlp"].pairs_by_position
    assert np.array_equal(layer.pairs_by_position, expected)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (replace(counts(1), labels=("a", "b", "c")), "counts of different layers or labels do not add up"),
        (counts(1, layers=1), "counts of different layers or labels do not add up"),
        (counts(1, experts=3), r"tokens_by_experts has shapes|pairs has shapes \(4,\) and \(3,\)"),
        (counts_of(*decisions(1), NAMES, np.array([0, 2, 3])), r"grids are \[1, 2, 3\] and \[0, 2, 3\]"),
    ],
)
def test_what_does_not_add_up(other, message):
    with pytest.raises(ValueError, match=message):
        counts(1) + other


def test_shares_are_their_definitions():
    weights, labels_NP = decisions(6)
    layer = counts_of(weights, labels_NP, NAMES, GRID).layers["blocks.1.mlp"]
    active = weights[0] >= 0
    samples, positions, experts = active.shape
    for i in range(experts):
        for j in range(experts):
            both = sum(active[n, p, i] and active[n, p, j] for n in range(samples) for p in range(positions))
            assert layer.co_activation[i, j] == pytest.approx(both / (samples * positions))
        for label in range(len(NAMES)):
            served = active[labels_NP == label]
            assert layer.label_load[label, i] == pytest.approx(served[:, i].sum() / max(served.sum(), 1))
        for position in range(positions):
            assert layer.position_load[position, i] == pytest.approx(active[:, position, i].mean())
    for number in range(experts + 1):
        assert layer.experts_per_token[number] == pytest.approx((active.sum(-1) == number).mean())


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"routing.npz: there is no such file; vmoe eval writes it"):
        read_counts(tmp_path / COUNTS)


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"no archive", lambda b: b[:100]]
)
def test_a_damaged_file(tmp_path, damage):
    path = save_counts(counts(3), tmp_path / COUNTS)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"routing.npz is damaged \(.*\); evaluate the run again with vmoe eval"):
        read_counts(path)


def test_a_file_of_something_else(tmp_path):
    (tmp_path / COUNTS).write_bytes(b"no archive")
    with pytest.raises(ValueError, match="is damaged"):
        read_counts(tmp_path / COUNTS)


def test_a_flipped_byte_is_found(tmp_path):
    """Each member of the archive has a checksum."""
    path = save_counts(counts(3), tmp_path / COUNTS)
    content = bytearray(path.read_bytes())
    content[content.index(b"0.pairs.npy") + 60] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="is damaged"):
        read_counts(path)


def test_a_file_of_another_format_or_without_a_part(tmp_path):
    path = tmp_path / COUNTS
    save_arrays({"format": np.array(FORMAT + 1)}, path)
    with pytest.raises(ValueError, match=f"format is {FORMAT + 1}; this version of vmoe reads {FORMAT}"):
        read_counts(path)
    save_arrays({"nothing": np.array(1)}, path)
    with pytest.raises(ValueError, match="format is None"):
        read_counts(path)
    arrays = read_arrays(save_counts(counts(2), path), FORMAT)
    arrays.pop("1.both")
    save_arrays(arrays, path)
    with pytest.raises(ValueError, match=r"routing.npz lacks '1.both'; evaluate the run again"):
        read_counts(path)
