"""The checkpoints a run keeps: which, under which names, and what is left of them after damage and full disks."""

import errno
import math
import os
import threading

import pytest
from stored import checkpoint_of, damage, steps_in, store_in

from vmoe.train.checkpoint import file, read_checkpoint, save_checkpoint
from vmoe.train.checkpoint import store as store_module


def save_all(store, *saves):
    """Save (step, rank) one after another."""
    with store:
        for step, rank in saves:
            store.save(checkpoint_of(step, evaluated=0 if rank is None else step), rank=rank)


def test_the_last_two_stay(tmp_path):
    save_all(store_in(tmp_path), (1, None), (2, None), (3, None))
    assert steps_in(tmp_path) == {"last.pt": 3, "previous.pt": 2}


def test_an_evaluation_takes_the_place_of_the_state_it_evaluated(tmp_path):
    save_all(store_in(tmp_path), (1, None), (2, None), (2, 0.5))
    assert steps_in(tmp_path) == {"last.pt": 2, "previous.pt": 1, "best.pt": 2}
    assert os.path.samefile(tmp_path / "last.pt", tmp_path / "best.pt")  # written once


def test_there_are_two_even_of_one_step(tmp_path):
    save_all(store_in(tmp_path), (1, None), (1, 0.5))
    assert steps_in(tmp_path) == {"last.pt": 1, "previous.pt": 1, "best.pt": 1}
    assert not os.path.samefile(tmp_path / "last.pt", tmp_path / "previous.pt")


def test_the_best_are_ordered_by_rank_and_the_earlier_of_equals_stays(tmp_path):
    ranks = [(1, 0.2), (2, 0.9), (3, 0.5), (4, 0.9), (5, 0.1), (6, math.nan), (7, -math.inf)]
    save_all(store_in(tmp_path, keep_best=3), *ranks)
    assert steps_in(tmp_path) == {"last.pt": 7, "previous.pt": 6, "best.pt": 2, "best-4.pt": 4, "best-3.pt": 3}
    save_all(store_in(tmp_path, keep_best=3), (8, 1.0))
    assert steps_in(tmp_path) == {"last.pt": 8, "previous.pt": 7, "best.pt": 8, "best-2.pt": 2, "best-4.pt": 4}


def test_the_best_survives_a_restart(tmp_path):
    save_all(store_in(tmp_path), (1, 0.5), (2, 0.7), (3, 0.6))
    store = store_in(tmp_path)
    assert store.best_rank == 0.7
    save_all(store, (3, 0.6), (4, 0.65))
    assert steps_in(tmp_path)["best.pt"] == 2
    save_all(store, (5, 0.8))
    assert store.best_rank == store_in(tmp_path).best_rank == 0.8
    assert steps_in(tmp_path)["best.pt"] == 5


def test_a_step_evaluated_again_is_one_of_the_best_once_and_not_worse(tmp_path):
    save_all(store_in(tmp_path, keep_best=2), (1, 0.5), (2, 0.7))
    save_all(store_in(tmp_path, keep_best=2), (2, 0.6))  # the run before ended after step 1
    assert steps_in(tmp_path)["best.pt"] == 2
    assert store_in(tmp_path).best_rank == 0.7
    save_all(store_in(tmp_path, keep_best=2), (2, 0.7), (1, 0.9))
    assert {name: step for name, step in steps_in(tmp_path).items() if "best" in name} == {"best.pt": 1, "best-2.pt": 2}


def test_without_a_checkpoint_there_is_no_best(tmp_path):
    store = store_in(tmp_path / "none")
    assert store.best_rank == -math.inf
    assert store.newest() is None
    assert store.paths == []
    assert not (tmp_path / "none").exists()


def test_fewer_best_ones_stay_once_fewer_are_asked_for(tmp_path):
    save_all(store_in(tmp_path, keep_best=3), (1, 0.1), (2, 0.2), (3, 0.3))
    save_all(store_in(tmp_path, keep_best=1), (4, 0.0))
    assert steps_in(tmp_path) == {"last.pt": 4, "previous.pt": 3, "best.pt": 3}


def test_checkpoints_stay_at_multiples_of_keep_every(tmp_path):
    save_all(store_in(tmp_path, keep_every=4), *((step, None) for step in range(2, 11, 2)))
    assert steps_in(tmp_path) == {"last.pt": 10, "previous.pt": 8, "step-4.pt": 4, "step-8.pt": 8}


def test_a_store_that_does_not_write_does_not(tmp_path):
    save_all(store_in(tmp_path, writes=False), (1, 0.5))
    assert list(tmp_path.iterdir()) == []
    save_all(store_in(tmp_path), (1, 0.5))
    assert store_in(tmp_path, writes=False).newest()[1]["training"]["step"] == 1


def test_file_systems_without_links_get_copies(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EOPNOTSUPP, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    save_all(store_in(tmp_path, keep_best=2, keep_every=2), (1, 0.1), (2, 0.3), (3, 0.2))
    wanted = {"last.pt": 3, "previous.pt": 2, "best.pt": 2, "best-3.pt": 3, "step-2.pt": 2}
    assert steps_in(tmp_path) == wanted
    assert len({path.stat().st_ino for path in tmp_path.iterdir()}) == len(wanted)


# --- the thread ------------------------------------------------------------------------------------------


def test_saving_returns_while_the_file_is_written_and_waits_for_the_one_before(tmp_path, monkeypatch):
    go_on, written = threading.Event(), []

    def slow(path, contents):
        assert go_on.wait(timeout=30)
        written.append(contents["training"]["step"])
        file.write_contents(path, contents)

    monkeypatch.setattr(store_module, "write_contents", slow)
    store = store_in(tmp_path)
    store.save(checkpoint_of(1))
    assert written == []  # and here training would go on
    second = threading.Thread(target=store.save, args=(checkpoint_of(2),))
    second.start()
    second.join(timeout=0.05)
    assert second.is_alive()
    go_on.set()
    second.join(timeout=30)
    store.close()
    assert written == [1, 2]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("checkpoints")]


def test_what_no_checkpoint_holds_is_refused_at_once(tmp_path):
    with pytest.raises(TypeError, match="allowed in a checkpoint"):
        store_in(tmp_path).save({**checkpoint_of(1), "config": object()})


# --- full disks ------------------------------------------------------------------------------------------


class Failing:
    """`os.replace` and the like that fail while `on`, as on a full disk."""

    def __init__(self, monkeypatch, place, name):
        self.original, self.on = getattr(place, name), False
        monkeypatch.setattr(place, name, self)

    def __call__(self, *arguments):
        if self.on:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.original(*arguments)


@pytest.mark.parametrize(
    ("place", "name"), [(store_module, "write_contents"), (store_module, "flush"), (os, "replace"), (os, "fsync")]
)
def test_a_failed_write_is_told_and_leaves_what_was_there(place, name, tmp_path, monkeypatch, capfd):
    failing = Failing(monkeypatch, place, name)
    store = store_in(tmp_path)
    save_all(store, (1, None), (2, None))
    failing.on = True
    store.save(checkpoint_of(3, evaluated=3), rank=0.5)
    with pytest.raises(OSError, match=r"last\.pt could not be written: .*No space"):
        store.wait()
    told = capfd.readouterr().err
    assert "No space left on device" in told
    assert f"the last good one is {tmp_path / 'last.pt'}" in told
    assert steps_in(tmp_path) == {"last.pt": 2, "previous.pt": 1}
    failing.on = False
    save_all(store, (4, 0.5))  # which does not raise: the latest write is good
    assert steps_in(tmp_path) == {"last.pt": 4, "previous.pt": 2, "best.pt": 4}
    assert not list(tmp_path.glob(".*"))


def test_an_error_within_is_not_hidden_by_one_at_the_end(tmp_path, monkeypatch):
    Failing(monkeypatch, store_module, "write_contents").on = True

    def diverge():
        with store_in(tmp_path) as store:
            store.save(checkpoint_of(1))
            raise FloatingPointError

    with pytest.raises(FloatingPointError):
        diverge()


# --- damage ----------------------------------------------------------------------------------------------


def test_a_damaged_newest_one_falls_back_to_the_one_before(tmp_path, capfd):
    save_all(store_in(tmp_path, keep_every=1), (1, 0.5), (2, 0.4), (3, None))
    store = store_in(tmp_path)
    assert store.newest()[0] == tmp_path / "last.pt"
    assert capfd.readouterr().err == ""
    damage(tmp_path / "last.pt")
    assert store.newest()[0] == tmp_path / "step-3.pt"
    assert f"{tmp_path / 'last.pt'}: damaged: its contents do not match" in capfd.readouterr().err
    (tmp_path / "step-3.pt").write_bytes(b"")
    path, contents = store.newest()
    assert (path.name, contents["training"]["step"]) == ("previous.pt", 2)
    damage(path)
    damage(tmp_path / "step-2.pt")
    assert store.newest()[1]["training"]["step"] == 1
    assert capfd.readouterr().err.count("passed over") == 2 + 4
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"no checkpoint is good: .*last\.pt.*previous\.pt.*best\.pt"):
        store.newest()
    assert len(list(tmp_path.iterdir())) == 6  # nothing is deleted


def test_of_one_step_the_evaluated_one_is_the_newest(tmp_path):
    save_all(store_in(tmp_path), (1, None), (2, 0.5))
    save_checkpoint(tmp_path / "last.pt", checkpoint_of(2))
    assert store_in(tmp_path).newest()[0].name == "best.pt"


def test_a_damaged_last_one_does_not_become_the_previous(tmp_path):
    save_all(store_in(tmp_path), (1, None), (2, None), (3, None))
    damage(tmp_path / "last.pt")
    save_all(store_in(tmp_path), (3, None))
    assert steps_in(tmp_path) == {"last.pt": 3, "previous.pt": 2}


def test_a_damaged_previous_one_is_replaced_even_by_one_of_the_same_step(tmp_path):
    save_all(store_in(tmp_path), (1, None), (2, None))
    damage(tmp_path / "previous.pt")
    save_all(store_in(tmp_path), (2, 0.5))
    assert steps_in(tmp_path) == {"last.pt": 2, "previous.pt": 2, "best.pt": 2}


def test_a_damaged_best_one_gives_its_place_to_the_next(tmp_path, capfd):
    save_all(store_in(tmp_path, keep_best=2), (1, 0.5), (2, 0.9), (3, None), (4, None))
    damage(tmp_path / "best.pt")
    store = store_in(tmp_path, keep_best=2)
    assert store.best_rank == 0.5
    assert "best.pt: damaged" in capfd.readouterr().err
    save_all(store, (5, 0.3))
    assert steps_in(tmp_path) == {"last.pt": 5, "previous.pt": 4, "best.pt": 1, "best-5.pt": 5}


def test_a_run_of_format_1_goes_on(tmp_path):
    """Its last.pt was written before its evaluation, and best.pt because of it."""
    import torch

    for name, step, evaluated, best in [("last", 3, 2, 0.6), ("best", 2, 2, 0.6)]:
        old = checkpoint_of(step, evaluated=evaluated)
        old["training"]["best"] = best
        torch.save({**old, "format": 1}, tmp_path / f"{name}.pt")
    store = store_in(tmp_path)
    assert store.best_rank == 0.6
    assert store.newest()[0].name == "last.pt"
    save_all(store, (3, 0.5), (4, 0.4))
    assert steps_in(tmp_path) == {"last.pt": 4, "previous.pt": 3, "best.pt": 2}
    assert read_checkpoint(tmp_path / "best.pt")["format"] == 2
