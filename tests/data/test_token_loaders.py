"""Batches of tokens: blocks of training and windows of evaluation, whatever the number of processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from token_files import TOKENS, config, write_ids

from vmoe.data import DataError, Share
from vmoe.data.tokens import IGNORE, TokenLoader, open_token_evaluation, open_token_loaders

N = 8


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file whose token at position p is p: what a batch holds says where it was read."""
    return write_ids(tmp_path_factory.mktemp("tokens") / "x.tokens", np.arange(TOKENS))


def ranks(world: int) -> list[Share]:
    return [Share(rank, world) for rank in range(world)]


def train(path: Path, processes: Share | None = None, *, seed: int = 0, batch_size: int = 4) -> TokenLoader:
    return open_token_loaders(config(path, block_size=N), seed=seed, batch_size=batch_size, processes=processes).train


def read(loader: TokenLoader, epoch: int, first: int = 0) -> list[list[list[int]]]:
    """Batches, of rows, of the inputs and the last target."""
    batches = []
    for inputs, targets in loader.epoch(epoch, first):
        assert inputs.dtype == targets.dtype == torch.int64
        assert inputs.shape == targets.shape
        assert torch.equal(inputs[:, 1:], targets[:, :-1])
        batches.append(torch.cat([inputs, targets[:, -1:]], dim=1).tolist())
    return batches


def test_an_epoch_is_a_permutation_of_blocks_side_by_side(path: Path) -> None:
    loader = train(path)
    batches = read(loader, 3)
    assert len(batches) == len(loader) == loader.batches == (TOKENS - N) // N // 4
    assert {len(batch) for batch in batches} == {4}
    rows = sorted(row for batch in batches for row in batch)
    assert loader.samples == len(rows)
    assert loader.tokens == len(rows) * N
    starts = [row[0] for row in rows]
    assert rows == [list(range(start, start + N + 1)) for start in starts]
    offset = starts[0] % N
    assert {start % N for start in starts} == {offset}
    assert len(set(starts)) == len(starts)
    assert starts != [row[0] for batch in batches for row in batch]


def test_batches_are_a_function_of_seed_and_epoch(path: Path) -> None:
    assert read(train(path), 5) == read(train(path), 5)
    different = {str(read(train(path, seed=seed), epoch)) for seed in range(3) for epoch in range(3)}
    assert len(different) == 9


def test_every_place_is_where_some_epoch_cuts(path: Path) -> None:
    loader = train(path)
    epochs = [read(loader, epoch) for epoch in range(60)]
    assert {batches[0][0][0] % N for batches in epochs} == set(range(N))
    assert {len(batches) for batches in epochs} == {len(loader)}


@pytest.mark.parametrize("tokens", range(2 * N, 4 * N))
def test_blocks_fit_wherever_they_begin(tmp_path: Path, tokens: int) -> None:
    loader = train(write_ids(tmp_path / "x.tokens", np.arange(tokens)), batch_size=1)
    for epoch in range(30):
        assert len(read(loader, epoch)) == (tokens - N) // N


@pytest.mark.parametrize("world", [2, 3, 4])
def test_a_step_has_the_same_sequences_whatever_the_number_of_processes(path: Path, world: int) -> None:
    whole = read(train(path, batch_size=12), 2)
    each = [read(train(path, share, batch_size=12 // world), 2) for share in ranks(world)]
    for batch, *parts in zip(whole, *each, strict=True):
        assert sorted(batch) == sorted(row for part in parts for row in part)


@pytest.mark.parametrize("first", [0, 1, 7])
def test_an_epoch_resumes_in_its_middle(path: Path, first: int) -> None:
    for loader in (train(path, Share(1, 2)), evaluation(path, 3, Share(1, 2))):
        whole = list(loader.epoch(4))
        rest = list(loader.epoch(4, first))
        assert len(rest) == len(whole) - first
        for batch, same in zip(whole[first:], rest, strict=True):
            assert all(map(torch.equal, batch, same))
        assert list(loader.epoch(4, len(loader))) == []


def test_batches_are_a_multiple_of_accumulate(path: Path) -> None:
    loaders = open_token_loaders(config(path, block_size=N), seed=0, batch_size=4, accumulate=5)
    assert len(loaders.train) == (TOKENS - N) // N // 4 // 5 * 5


def test_a_batch_owns_its_memory(path: Path) -> None:
    loader = train(path)
    before = read(loader, 0)
    for inputs, targets in loader.epoch(0):
        assert inputs.is_contiguous()
        assert targets.is_contiguous()
        inputs.zero_()
        targets.zero_()
    assert read(loader, 0) == before


# --- evaluation ------------------------------------------------------------------------------------------


def evaluation(path: Path, stride: int | None, processes: Share | None = None) -> TokenLoader:
    return open_token_evaluation(config(path, block_size=N, eval_stride=stride, eval_batch_size=3), processes=processes)


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("stride", [None, N, N // 2, 1, 3])
@pytest.mark.parametrize("tokens", [2, 3, N, N + 1, N + 2, 2 * N + 1, 61, 64, 65, 66, 67])
def test_every_token_but_the_first_is_counted_once(tmp_path: Path, tokens: int, stride: int | None, world: int) -> None:
    path = write_ids(tmp_path / "x.tokens", np.arange(tokens))
    loaders = [evaluation(path, stride, share) for share in ranks(world)]
    counted: list[int] = []
    windows = 0
    for rank, loader in enumerate(loaders):
        batches = list(loader.epoch(0))
        assert len(batches) == len(loader) == loader.batches
        for inputs, targets in batches:
            windows += len(inputs)
            assert len(inputs) <= 3
            assert ((targets == inputs + 1) | (targets == IGNORE)).all()
            counted += targets[targets != IGNORE].tolist()
            starts = inputs[:, 0]
            assert (starts % (stride or N) == 0).all()
            assert (starts // (stride or N) % world == rank).all()
            # As much context as the window's place gives: all of a short file, or a whole stride's overlap.
            first = (targets != IGNORE).int().argmax(1)
            assert torch.equal(first, torch.where(starts == 0, 0, N - (stride or N)))
            assert inputs.shape[1] == N or (len(inputs) == 1 and inputs[0, -1] == tokens - 2)
    assert sorted(counted) == list(range(1, tokens))
    assert {loader.tokens for loader in loaders} == {tokens - 1}
    assert {loader.samples for loader in loaders} == {windows}


# --- errors ----------------------------------------------------------------------------------------------


def test_fewer_blocks_than_a_step(path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.train is .* 66 blocks .* data\.batch_size is 68 \(1 processes × 2"):
        open_token_loaders(config(path, block_size=N), seed=0, batch_size=34, accumulate=2)
    with pytest.raises(DataError, match=r"data\.batch_size makes batches of 0"):
        open_token_loaders(config(path, block_size=N), seed=0, batch_size=0)


def test_a_token_that_the_vocabulary_lacks_is_named(tmp_path: Path) -> None:
    ids = np.arange(TOKENS) % 257
    ids[300] = 257
    path = write_ids(tmp_path / "x.tokens", ids, vocab_size=257)
    with pytest.raises(DataError, match=r"x\.tokens' has token 257 at position 300; allowed: 0 to 256"):
        list(evaluation(path, None).epoch(0))


@pytest.mark.parametrize(("count", "windows"), [(3, 3), (1000, (TOKENS - 1) // N)])
def test_a_sample_is_whole_windows_evenly_spaced_and_the_same_on_every_process(
    path: Path, count: int, windows: int
) -> None:
    for share in [None, *ranks(2)]:
        loader = open_token_evaluation(config(path, block_size=N), processes=share).sample(count)
        ((inputs, targets),) = loader.epoch(0)
        assert loader.units == windows * N
        starts = inputs[:, 0].tolist()
        assert starts == [number * (TOKENS - N) // windows for number in range(windows)]
        assert inputs.tolist() == [list(range(start, start + N)) for start in starts]
        assert torch.equal(targets, inputs + 1)


def test_a_sample_of_less_than_a_window_is_all_of_it(tmp_path: Path) -> None:
    short = write_ids(tmp_path / "short.tokens", np.arange(5))
    ((inputs, targets),) = open_token_evaluation(config(short, block_size=N)).sample(2).epoch(0)
    assert inputs.tolist() == [[0, 1, 2, 3]]
    assert targets.tolist() == [[1, 2, 3, 4]]
