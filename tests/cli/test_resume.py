"""Going on with a run: on other numbers of processes, and after a launcher's restart."""

import pytest
import torch

from vmoe.cli.resume import goes_on, keep_batch
from vmoe.config import ConfigError, override_config
from vmoe.train.distributed import Processes

CONFIG = {
    "output": "runs/a",
    "model": {"name": "vit_tiny_patch16_224"},
    "data": {"train": "a", "val": "b", "batch_size": 12, "eval_batch_size": 4},
}


def processes(world: int) -> Processes:
    return Processes(rank=0, world=world, local_rank=0, local_world=world, device=torch.device("cpu"))


def stored(world: int, accumulate: int) -> dict:
    return {"training": {"processes": world}, "config": {"train": {"accumulate": accumulate}}}


def config_of(batch: int, accumulate: int = 1):
    return override_config(CONFIG, [f"data.batch_size={batch}", f"train.accumulate={accumulate}"], "test")


@pytest.mark.parametrize("batch", [12, 16, 30])
@pytest.mark.parametrize("before", [1, 2, 3, 4])
@pytest.mark.parametrize("now", [1, 2, 3, 4, 5])
def test_the_batch_stays_and_micro_batches_grow_no_larger(batch, before, now):
    for accumulated in (1, 2):
        if batch % (before * accumulated):
            continue
        call = (config_of(batch, accumulated), stored(before, accumulated), processes(now))
        if batch % now:
            with pytest.raises(
                ConfigError, match=rf"{now} processes in place of {before}.*batch_size {batch}.*allowed: 1, "
            ):
                keep_batch(*call)
            continue
        accumulate = keep_batch(*call).train.accumulate
        micro_batch, left = divmod(batch, now * accumulate)
        largest = batch // (before * accumulated)
        assert left == 0
        assert micro_batch <= largest
        if now == before:
            assert accumulate == accumulated
        else:  # and no smaller than they have to be
            divisors = [size for size in range(1, batch + 1) if (batch // now) % size == 0]
            assert micro_batch == max(size for size in divisors if size <= largest)


def test_as_many_processes_keep_what_the_config_says():
    config = config_of(12, accumulate=3)
    assert keep_batch(config, stored(2, 1), processes(2)) is config


@pytest.mark.parametrize("name", ["TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"])
def test_a_restart_goes_on_by_itself(name, monkeypatch):
    config = config_of(12)
    assert not goes_on(config)
    monkeypatch.setenv(name, "0")
    assert not goes_on(config)
    monkeypatch.setenv(name, "2")
    assert goes_on(config)
    monkeypatch.delenv(name)
    assert goes_on(config.model_copy(update={"train": config.train.model_copy(update={"resume": "auto"})}))
