from __future__ import annotations

from itertools import chain

import numpy as np
import pytest

from vmoe.data import Share
from vmoe.data.order import EvaluationOrder, TrainingOrder, batches_of, uniforms


def ranks(world: int) -> list[Share]:
    return [Share(rank, world) for rank in range(world)]


@pytest.mark.parametrize("world", range(1, 6))
@pytest.mark.parametrize("images", [1, 3, 4, 7, 64, 101])
def test_evaluation_covers_every_image_once(images: int, world: int) -> None:
    orders = [EvaluationOrder(images, 4, share) for share in ranks(world)]
    read = np.concatenate([order.indices(0) for order in orders])
    assert sorted(read) == list(range(images))  # also where a rank has none: images < world
    for rank, order in enumerate(orders):
        assert list(order.indices(0)) == list(range(rank, images, world))
        assert order.batches == len(list(batches_of(order, 0)))
        assert order.samples == images


@pytest.mark.parametrize("world", range(1, 6))
def test_training_partitions_a_permutation_into_full_batches(world: int) -> None:
    images, batch_size = 103, 4
    orders = [TrainingOrder(images, batch_size, share, seed=1) for share in ranks(world)]
    batches = [[indices for indices, _ in batches_of(order, 2)] for order in orders]
    assert {len(one) for one in batches} == {images // (batch_size * world)}
    assert {len(batch) for one in batches for batch in one} == {batch_size}
    read = np.concatenate([batch for one in batches for batch in one])
    assert len(read) == len(set(read)) == orders[0].samples == len(batches[0]) * batch_size * world
    assert set(read) <= set(range(images))


def test_training_order_is_a_function_of_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return TrainingOrder(100, 10, Share(), seed).indices(epoch).tolist()

    assert order(0, 0) == order(0, 0)
    assert sorted(order(0, 0)) == sorted(order(0, 1)) == sorted(order(1, 0)) == list(range(100))
    different = {tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(different) == 9


def test_the_images_of_a_step_do_not_depend_on_the_number_of_processes() -> None:
    def steps(world: int) -> list[set[int]]:
        each = [[set(i) for i, _ in batches_of(TrainingOrder(50, 12 // world, p, 3), 5)] for p in ranks(world)]
        return [set.union(*parts) for parts in zip(*each, strict=True)]

    assert steps(1) == steps(2) == steps(3) == steps(4)


def test_batches_are_a_multiple_of_accumulate() -> None:
    assert TrainingOrder(100, 10, Share(), 0).batches == 10
    order = TrainingOrder(100, 10, Share(), 0, accumulate=4)
    assert (order.batches, order.samples) == (8, 80)


def test_an_epoch_resumes_in_its_middle() -> None:
    order = TrainingOrder(100, 8, Share(1, 2), seed=0)
    whole, rest = list(batches_of(order, 3)), list(batches_of(order, 3, first=4))
    assert len(rest) == len(whole) - 4
    for (indices, keys), (same_indices, same_keys) in zip(whole[4:], rest, strict=True):
        assert np.array_equal(indices, same_indices)
        assert np.array_equal(keys, same_keys)


def keys_of(epoch: int = 0, seed: int = 0, **settings: int) -> list[dict[int, list[int]]]:
    """For each rank of `world`, the random numbers of each image that it reads."""
    world, found = settings.pop("world", 1), []
    for share in ranks(world):
        order = TrainingOrder(48, 12 // world, share, seed, **settings)
        found.append({image: [] for image in range(48)})
        for image, key in zip(order.indices(epoch).tolist(), order.keys(epoch).tolist(), strict=True):
            found[-1][image].append(key)
    return found


def test_an_images_random_number_depends_on_seed_and_epoch_but_not_on_who_reads_it() -> None:
    (alone,) = keys_of()
    numbers = {key for (key,) in alone.values()}
    assert len(numbers) == 48
    for rank in keys_of(world=2):
        assert all(keys in ([], alone[image]) for image, keys in rank.items())
    for other in (keys_of(seed=1), keys_of(epoch=1)):
        assert not numbers & {key for (key,) in other[0].values()}


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("repeats", [2, 3, 5])
def test_an_epoch_of_repeated_images_is_as_long_with_fewer_of_them(repeats: int, world: int) -> None:
    each = keys_of(world=world, repeats=repeats)
    together = {image: [key for rank in each for key in rank[image]] for image in range(48)}
    counts = [len(keys) for keys in together.values() if keys]
    assert sum(counts) == 48
    assert len(counts) == -(-48 // repeats)
    assert all(count == repeats for count in sorted(counts)[1:])  # the last one may be cut off
    keys = [key for one in together.values() for key in one]
    assert len(set(keys)) == 48  # every copy is augmented in its own way
    (once,) = keys_of()
    assert all(once[image][0] in keys for image, keys in together.items() if keys)
    if repeats == world:  # copies are on different processes
        assert all(len(keys) <= 1 for rank in each for keys in rank.values())


def test_repeats_fill_a_step_however_many_processes_share_it() -> None:
    def steps(world: int) -> list[list[tuple[int, int]]]:
        each = [
            [list(zip(i.tolist(), k.tolist(), strict=True)) for i, k in batches_of(order, 1)]
            for order in (TrainingOrder(50, 12 // world, p, 3, repeats=3) for p in ranks(world))
        ]
        return [sorted(chain(*parts)) for parts in zip(*each, strict=True)]

    assert steps(1) == steps(2) == steps(3)


def test_uniform_numbers_are_uniform() -> None:
    numbers = uniforms(TrainingOrder(20_000, 1, Share(), seed=0).keys(0), 4)
    assert 0 <= numbers.min() < numbers.max() < 1
    shares = np.apply_along_axis(lambda column: np.histogram(column, 10, (0, 1))[0], 0, numbers) / 20_000
    assert np.abs(shares - 0.1).max() < 5 * np.sqrt(0.1 * 0.9 / 20_000)
    assert np.abs(np.corrcoef(numbers.T) - np.eye(4)).max() < 5 / np.sqrt(20_000)
