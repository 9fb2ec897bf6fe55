"""The guards around FFCV: errors, time limits and leaving early, none of which its own iterator survives."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toy import Toy

from vmoe.data import ArraySource, DataError, open_evaluation, open_loaders, write_beton
from vmoe.data.ffcv import FFCVLoader, _Guarded
from vmoe.data.sidecar import sidecar_path


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> None:
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 10
    while (left := set(threading.enumerate()) - before) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left


def test_an_error_in_the_thread_reaches_the_training_process(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = open_evaluation(toy.config("ffcv"))
    real, calls = FFCVLoader.crops, []

    def planted(self, indices, keys):
        calls.append(threading.current_thread())
        if len(calls) == 3:
            raise OSError("planted")
        return real(self, indices, keys)

    monkeypatch.setattr(FFCVLoader, "crops", planted)
    batches = loader.epoch(0)
    assert len([next(batches), next(batches)]) == 2
    with pytest.raises(RuntimeError, match=f"{toy.beton}.*OSError: planted") as caught:
        next(batches)
    assert isinstance(caught.value.__cause__, OSError)
    assert threading.main_thread() not in calls
    monkeypatch.undo()
    assert len(list(loader.epoch(0))) == len(loader)  # the loader itself is as good as new


def test_no_batch_within_the_time_limit(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = open_evaluation(toy.config("ffcv", timeout=0.2))
    release = threading.Event()
    monkeypatch.setattr(FFCVLoader, "crops", lambda *_: release.wait(30))
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=rf"{toy.beton}.* 0\.2 seconds \(data\.timeout\)"):
        next(loader.epoch(0))
    assert time.monotonic() - start < 5
    release.set()


def test_closing_waits_for_the_thread(toy: Toy) -> None:
    batches = open_loaders(toy.config("ffcv"), seed=0, batch_size=8).train.epoch(0)
    next(batches)
    assert any(isinstance(thread, _Guarded) for thread in threading.enumerate())
    batches.close()
    assert not any(isinstance(thread, _Guarded) for thread in threading.enumerate())


def test_two_epochs_at_once(toy: Toy) -> None:
    train, val = open_loaders(toy.config("ffcv"), seed=0, batch_size=8)
    alone = [labels.tolist() for _, labels in val.epoch(0)]
    together = []
    for _ in train.epoch(0):
        together.append([labels.tolist() for _, labels in val.epoch(0)])
    assert together == [alone] * len(train)


def test_damaged_jpeg_data_is_an_error(toy: Toy, tmp_path: Path) -> None:
    beton = tmp_path / "toy.beton"
    write_beton(toy.folder, beton, mode="jpg", workers=1, progress=False)
    content = bytearray(beton.read_bytes())
    begin = content.index(b"\xff\xd8\xff", len(content) // 3)  # of some JPEG in the file's middle
    content[begin : begin + 100] = bytes(100)
    beton.write_bytes(content)
    with pytest.raises(DataError, match=f"image [0-9]+ of '{beton}' is no valid image data"):
        list(open_evaluation(toy.config("ffcv", val=str(beton))).epoch(0))


def test_torch_keeps_its_threads(toy: Toy) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for _ in open_evaluation(toy.config("ffcv", workers=1)).epoch(0):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_flips_mirror_and_crops_cut(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = next(open_evaluation(toy.config("ffcv")).epoch(0))[0]
    monkeypatch.setattr(FFCVLoader, "crops", lambda _, indices, __: np.array([[0, 0, 12, 12, 1]] * len(indices)))
    assert torch.equal(next(open_evaluation(toy.config("ffcv")).epoch(0))[0], plain.flip(-1))
    monkeypatch.setattr(FFCVLoader, "crops", lambda _, indices, __: np.array([[2, 5, 4, 4, 0]] * len(indices)))
    cut = next(open_evaluation(toy.config("ffcv", image_size=4)).epoch(0))[0]
    assert torch.equal(cut, plain[..., 2:6, 5:9])


def test_odd_sizes_and_images_smaller_than_the_crop(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    shapes = [(1, 1), (1, 40), (40, 1), (3, 5), (8, 8), (31, 17), (200, 100)]
    images = [np.full((*shape, 3), generator.integers(0, 256, 3), np.uint8) for shape in shapes]
    labels = np.arange(len(shapes))
    source = ArraySource("shapes", images, labels, tuple(map(str, labels)))
    for mode in ("raw", "jpg"):
        path = tmp_path / f"{mode}.beton"
        write_beton(source, path, mode=mode, workers=1, progress=False)
        config = Toy(tmp_path, path).config("ffcv", image_size=24, eval_crop=0.5, crop_scale=(0.1, 1.0), batch_size=7)
        for loader in open_loaders(config, seed=0, batch_size=7):
            for batch, found in loader.epoch(0):
                for image, label in zip(batch, found, strict=True):  # each of one colour: it survives any crop
                    expected = torch.from_numpy(images[label][0, 0]).view(3, 1, 1).int()
                    assert (image.int() - expected).abs().max() <= (0 if mode == "raw" else 4)


def test_a_file_without_sidecar_has_numbers_for_classes(toy: Toy, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.beton"
    shutil.copy(toy.beton, foreign)
    assert not sidecar_path(foreign).exists()
    loader = open_evaluation(toy.config("ffcv", val=str(foreign)))
    assert loader.classes == ("0", "1", "2")
    train = open_loaders(toy.config("ffcv", val=str(foreign)), seed=0, batch_size=8).train
    assert train.classes == ("cat", "dog", "eel")  # the other split's names hold for both
    picture = Image.open(toy.folder / "cat" / "00.png")
    assert torch.equal(next(loader.epoch(0))[0][0], torch.from_numpy(np.array(picture)).permute(2, 0, 1))
