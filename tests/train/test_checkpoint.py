"""Checkpoints: whole or refused, and never code."""

import pickle

import pytest
import torch
from memory import tiny_config, tiny_run

import vmoe
from vmoe.train.checkpoint import KEYS, read_checkpoint, save_checkpoint
from vmoe.train.loop import fit


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    state, parts = tiny_run(tiny_config("train.ema_decay=0.5", "moe.gate=self"), folder)
    fit(state, parts)
    return parts.folder.last, state


def test_a_model_loads_from_its_checkpoint_alone(checkpoint):
    path, state = checkpoint
    images = torch.randn(3, 3, 8, 8)
    model = vmoe.load(path)
    assert not model.training
    with torch.no_grad():
        assert torch.equal(model(images), state.model.eval()(images))
        assert torch.equal(vmoe.load(path, weights="ema")(images), state.ema.module.eval()(images))


def test_saving_fails_whole_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint(path, dict.fromkeys(KEYS, 1))
    unpicklable = dict.fromkeys(KEYS, 1) | {"training": lambda: None}
    with pytest.raises((pickle.PicklingError, AttributeError)):
        save_checkpoint(path, unpicklable)
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]
    assert read_checkpoint(path)["format"] == 1


class Payload:
    def __reduce__(self):
        return (open, ("ran", "w"))


def corrupt(path, damage):
    content = path.read_bytes()
    if damage == "truncated":
        return content[: len(content) // 2]
    if damage == "empty":
        return b""
    return b"not a checkpoint at all"


@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_damaged_files_are_refused_by_name(checkpoint, damage, tmp_path):
    broken = tmp_path / "broken.pt"
    broken.write_bytes(corrupt(checkpoint[0], damage))
    with pytest.raises(ValueError, match=r"broken\.pt: (damaged|refused)"):
        read_checkpoint(broken)


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"format": 1, "model": Payload()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match=r"evil\.pt: refused"):
        read_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


def test_what_is_missing_is_named(checkpoint, tmp_path):
    whole = read_checkpoint(checkpoint[0])
    for change, message in [
        ({"format": 99}, "format 99; this version of vmoe reads 1"),
        ({"weights": {}}, "weights do not fit the model"),
        ({"ema": None}, "no moving average"),
    ]:
        torch.save(whole | change, tmp_path / "other.pt")
        with pytest.raises(ValueError, match=message):
            vmoe.load(tmp_path / "other.pt", weights="ema" if "ema" in change else "raw")
    torch.save({key: value for key, value in whole.items() if key != "config"}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="lacks config"):
        vmoe.load(tmp_path / "other.pt")
    torch.save({"blocks.0.mlp.fc1.weight": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="no checkpoint of vmoe"):
        vmoe.load(tmp_path / "other.pt")
    with pytest.raises(FileNotFoundError, match=r"none\.pt: no such checkpoint"):
        vmoe.load(tmp_path / "none.pt")
