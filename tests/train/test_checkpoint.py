"""A checkpoint file: whole or refused, exactly what was written, and never code."""

import os
import pickle
import re
import resource
import signal

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from memory import tiny_config, tiny_run
from stored import small_checkpoint
from torch.testing import assert_close

import vmoe
from vmoe.train.checkpoint import FORMAT, KEYS, read_checkpoint, save_checkpoint
from vmoe.train.checkpoint.contents import ADDED, digest_of
from vmoe.train.loop import fit
from vmoe.train.snapshot import snapshot


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    state, parts = tiny_run(tiny_config("train.ema_decay=0.5", "moe.gate=self"), folder)
    fit(state, parts)
    return parts.folder.checkpoints.last, state


def small(**changes):
    """A checkpoint with every type that there is."""
    tied = torch.arange(6.0).reshape(2, 3)
    weights = {"a": tied, "b": tied, "half": torch.tensor([1.5, float("nan")], dtype=torch.bfloat16), "none": tied[:0]}
    training = {
        "step": 3,
        "evaluated": 3,
        "train_flops": 9,
        "best": -float("inf"),
        "optimizer": {0: {"step": torch.tensor(3.0)}},
    }
    training |= {"betas": (0.9, 0.95), "list": [True, None, "ü"]}
    return small_checkpoint(**{"weights": weights, "training": training} | changes)


def written(path, **changes):
    save_checkpoint(path, small(**changes))
    return path


def test_a_model_loads_from_its_checkpoint_alone(checkpoint):
    path, state = checkpoint
    images = torch.randn(3, 3, 8, 8)
    model = vmoe.load(path)
    assert not model.training
    with torch.no_grad():
        assert torch.equal(model(images), state.model.eval()(images))
        assert torch.equal(vmoe.load(path, weights="ema")(images), state.ema.module.eval()(images))


def test_what_is_read_is_what_was_written(tmp_path):
    read = read_checkpoint(written(tmp_path / "a.pt"))
    assert set(read) == KEYS | ADDED
    assert {key: read[key] for key in KEYS - {"weights", "training"}} == {
        key: small()[key] for key in KEYS - {"weights", "training"}
    }
    assert read["training"]["betas"] == (0.9, 0.95)
    assert read["training"]["optimizer"][0]["step"].dtype == torch.float32
    assert read["weights"]["a"].data_ptr() == read["weights"]["b"].data_ptr()
    assert read["weights"]["half"].view(torch.int16).equal(small()["weights"]["half"].view(torch.int16))


def test_saving_fails_whole_and_leaves_the_old_file(tmp_path):
    path = written(tmp_path / "last.pt")
    with pytest.raises(TypeError, match=r"checkpoint\['training'\]\['step'\] is <function"):
        save_checkpoint(path, small(training={"step": lambda: None}))
    with full_after(5000), pytest.raises(OSError, match="File too large"):
        save_checkpoint(path, small(weights={"a": torch.zeros(10_000)}))
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]
    assert read_checkpoint(path)["training"]["step"] == 3


class full_after:  # noqa: N801, as a context manager's name reads
    """A disk on which files end after so many bytes."""

    def __init__(self, size):
        self.size = size

    def __enter__(self):
        self.handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        self.limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.limit[1]))

    def __exit__(self, *error):
        resource.setrlimit(resource.RLIMIT_FSIZE, self.limit)
        signal.signal(signal.SIGXFSZ, self.handler)


class Payload:
    def __reduce__(self):
        return (open, ("ran", "w"))


def corrupt(content, damage):
    return {"truncated": content[: len(content) // 2], "empty": b"", "text": b"no checkpoint", "short": content[:-1]}[
        damage
    ]


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "short"])
def test_damaged_files_are_refused_by_name(checkpoint, damage, tmp_path):
    broken = tmp_path / "broken.pt"
    broken.write_bytes(corrupt(checkpoint[0].read_bytes(), damage))
    with pytest.raises(ValueError, match=r"broken\.pt: (damaged|refused)"):
        read_checkpoint(broken)


@pytest.fixture(scope="module")
def small_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("small") / "small.pt"
    return written(path), digest_of(read_checkpoint(path))


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_file_with_other_bytes_is_refused_or_holds_the_same(data, small_file, tmp_path):
    """Bits, bytes and pieces, anywhere: what zip does not look at may change, and nothing else."""
    path, digest = small_file
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(content) - 1))
        flipped = bytes([content[start] ^ 1 << data.draw(st.integers(0, 7))])
        new = data.draw(st.one_of(st.just(flipped), st.binary(max_size=9)))
        content[start : start + len(new)] = new
    broken = tmp_path / "broken.pt"
    broken.write_bytes(content)
    found = what_is_read(broken)
    assert found == digest or found.startswith("broken.pt: ")


def what_is_read(path):
    """The digest of what a file holds, or how the error begins."""
    try:
        return digest_of(read_checkpoint(path))
    except ValueError as error:
        return re.match(r"\S+/(\S+ \w+)", str(error))[1]


@pytest.mark.slow
def test_every_bit_of_a_file_is_needed_or_means_nothing(small_file, tmp_path):
    path, digest = small_file
    content = path.read_bytes()
    broken = tmp_path / "broken.pt"
    for place in range(8 * len(content)):
        changed = bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        broken.write_bytes(changed)
        found = what_is_read(broken)
        assert found == digest or found.startswith("broken.pt:"), place


def test_the_digest_is_of_everything_and_of_nothing_else(tmp_path):
    path = written(tmp_path / "a.pt")
    digest = read_checkpoint(path)["digest"]
    assert read_checkpoint(written(tmp_path / "b.pt"))["digest"] == digest
    backwards = dict(reversed(small().items()))
    save_checkpoint(path, backwards)
    assert read_checkpoint(path)["digest"] == digest
    tied = small()["weights"]["a"]
    for change in (
        {"weights": {**small()["weights"], "a": tied + 1}},
        {"weights": {**small()["weights"], "a": tied, "b": tied.clone()}},  # equal, and no longer one
        {"weights": {**small()["weights"], "a": tied.reshape(3, 2)}},
        {"training": small()["training"] | {"evaluated": 3.0}},
        {"training": small()["training"] | {"betas": [0.9, 0.95]}},
        {"vmoe": "y"},
    ):
        assert read_checkpoint(written(path, **change))["digest"] != digest
    save_checkpoint(path, small(), rank=0.5)
    assert read_checkpoint(path)["digest"] != digest


def test_a_snapshot_is_of_that_moment_and_shares_memory_with_itself_alone():
    original = small()
    copy = snapshot(original)
    assert copy["weights"]["a"].data_ptr() == copy["weights"]["b"].data_ptr() != original["weights"]["a"].data_ptr()
    original["weights"]["a"].zero_()
    original["training"]["optimizer"][0]["step"] += 1
    assert digest_of(copy) == digest_of(snapshot(small()))


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"format": 1, "model": Payload()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match=r"evil\.pt: refused"):
        read_checkpoint(tmp_path / "evil.pt")
    (tmp_path / "evil.pt").write_bytes(pickle.dumps({"format": 2, "model": Payload()}, protocol=2))
    with pytest.raises(ValueError, match=r"evil\.pt: damaged or no checkpoint: File is not a zip file"):
        read_checkpoint(tmp_path / "evil.pt")
    assert os.listdir() == ["evil.pt"]


def test_what_is_missing_is_named(checkpoint, tmp_path):
    whole = {key: value for key, value in read_checkpoint(checkpoint[0]).items() if key in KEYS}
    other = tmp_path / "other.pt"
    for change, message in [({"weights": {}}, "weights do not fit the model"), ({"ema": None}, "no moving average")]:
        save_checkpoint(other, whole | change)
        with pytest.raises(ValueError, match=message):
            vmoe.load(other, weights="ema" if "ema" in change else "raw")
    torch.save({key: value for key, value in whole.items() if key != "config"}, other)
    with pytest.raises(ValueError, match="lacks config, digest, rank"):
        vmoe.load(other)
    torch.save({**whole, "rank": None, "digest": "0"}, other)
    with pytest.raises(ValueError, match=r"other\.pt: damaged: its contents do not match its digest"):
        vmoe.load(other)
    torch.save({"blocks.0.mlp.fc1.weight": torch.zeros(2)}, other)
    with pytest.raises(ValueError, match="no checkpoint of vmoe"):
        vmoe.load(other)
    with pytest.raises(FileNotFoundError, match=r"none\.pt: no such checkpoint"):
        vmoe.load(tmp_path / "none.pt")


@pytest.mark.parametrize(
    ("number", "message"), [(99, "99; .*reads 1, 2; a newer version of vmoe wrote it"), ("2", "'2'")]
)
def test_other_formats_are_refused(number, message, tmp_path):
    torch.save(small(format=number), tmp_path / "other.pt")
    with pytest.raises(ValueError, match=f"checkpoint format {message}"):
        read_checkpoint(tmp_path / "other.pt")


def test_checkpoints_of_format_1_still_load(checkpoint, tmp_path):
    """They had neither rank nor digest, and torch's own dictionaries of weights and of the optimizer's state."""
    path, state = checkpoint
    whole = {key: value for key, value in read_checkpoint(path).items() if key in KEYS}
    old = tmp_path / "old.pt"
    training = whole["training"] | {"optimizer": state.optimizer.state_dict()}
    torch.save({**whole, "format": 1, "weights": state.model.state_dict(), "training": training}, old)
    read = read_checkpoint(old)
    assert read["format"] == FORMAT
    assert set(read) == KEYS | ADDED
    assert read["rank"] == whole["training"]["best"]  # of its own evaluation, since it was saved after that
    second, parts = tiny_run(tiny_config("train.ema_decay=0.5", "moe.gate=self"), tmp_path / "second")
    second.load(read, parts.layout)
    assert second.step == state.step
    then, now = (each.state_dict(parts.layout, first=True)["optimizer"] for each in (state, second))
    assert then["groups"] == now["groups"]
    assert_close(now["state"], then["state"], rtol=0, atol=0)
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(vmoe.load(old)(images), vmoe.load(path)(images))
    torch.save({**whole, "format": 1, "training": whole["training"] | {"evaluated": 0}}, old)
    assert read_checkpoint(old)["rank"] is None  # saved before its evaluation
