"""What a run's data and model are like; asked in a process of its own: a disk may hang, a model may be too large."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from vmoe.config import RunConfig
from vmoe.data.images import ClassFolders
from vmoe.data.sidecar import sidecar_path
from vmoe.train.distributed import Processes, start_processes
from vmoe.train.runfolder import RunFolder

from ..plan import BYTES_PER_WEIGHT, intended_density
from ..tasks import Data, assembly_of
from ..train import build_on
from ..weights import start_of

LOOKED_AT = 8  # samples of data.val that are read
SIZED = 1000  # files of an image folder whose sizes stand for all
STORED_PER_WEIGHT = 12  # bytes of a checkpoint: the float32 weight and AdamW's two moments
AVERAGE = 4  # bytes of the moving average of a weight, where one is kept


class Split(NamedTuple):
    """key: data.train or data.val. bytes: on disk. sidecar: whether the file has one; None where none is expected."""

    key: str
    path: str
    units: int
    bytes: int
    sidecar: bool | None


class Model(NamedTuple):
    """Bytes are estimates. device: where it trains. weights: with gradients and the optimizer. activations: of a
    micro-batch. checkpoint: of one file.
    """

    params: int
    active: int
    device: str
    precision: str
    weights: int
    activations: int
    batch: int
    checkpoint: int
    steps: int


class Prospect(NamedTuple):
    """unit, labels: what the data consist of, and what is told apart in them. no_data, no_task, no_model: why not; the
    task is what makes a loss of data, augmentation included.
    """

    splits: tuple[Split, ...] = ()
    unit: str = ""
    labels: str = ""
    no_data: str | None = None
    no_task: str | None = None
    model: Model | None = None
    no_model: str | None = None


EXPECTED = (ValueError, OSError, ImportError, RuntimeError)  # of broken files, packages and devices


def ask_run(config: RunConfig, processes: int) -> Prospect:
    """Open the data, read a few samples, build the model and measure it on the device that the run would take.

    Weights of libraries are not fetched. Raises `ValueError`: there is no such device.
    """
    with start_processes(config.train.device) as here:
        among = replace(here, world=processes, local_world=processes)
        assembly = assembly_of(config)
        try:
            data = assembly.open_data(among)
            with closing(data.val.sample(LOOKED_AT).epoch(0)) as batches:
                next(batches)
            splits = SPLITS[config.task](config, data)
        except EXPECTED as error:
            return Prospect(no_data=str(error))
        try:
            task = assembly.task(data.entry, data.val, here.device)
        except EXPECTED as error:
            return Prospect(no_task=str(error))
        known = Prospect(splits, task.UNIT, f"{task.num_labels:,} {task.LABEL}")
        try:
            return known._replace(model=describe_model(config, data, among))
        except EXPECTED as error:
            return known._replace(no_model=str(error))


def describe_model(config: RunConfig, data: Data, among: Processes) -> Model:
    """Everything that the run would build, measured."""
    train = config.train.model_copy(update={"probe_samples": 0, "tensorboard": False, "wandb": None})
    fresh = config.model.model_copy(update={"pretrained": False})
    config = config.model_copy(update={"train": train, "model": fresh})
    state, parts = build_on(data, config, among, RunFolder(config.output, writes=False), start_of(config))
    cost, batch = parts.cost, assembly_of(config).micro_batch_size(among)
    average = AVERAGE if state.ema is not None else 0
    return Model(
        params=cost.params,
        active=round(cost.active_params(intended_density(config, cost))),
        device=among.device.type,
        precision=str(parts.precision).removeprefix("torch."),
        weights=cost.params * (BYTES_PER_WEIGHT + average),
        activations=cost.activation_bytes * batch * parts.precision.itemsize // 4,
        batch=batch,
        checkpoint=cost.params * (STORED_PER_WEIGHT + average),
        steps=parts.last_step,
    )


def _image_splits(config: RunConfig, data: Data) -> tuple[Split, ...]:
    """Files of either loader, wherever an embedded set was written to."""
    return _image_split("data.train", data.train), _image_split("data.val", data.val)


def _image_split(key: str, loader: Any) -> Split:
    source = loader.source
    if isinstance(source, ClassFolders):
        some = source.files[:: max(1, len(source.files) // SIZED)]
        mean = sum(Path(file).stat().st_size for file in some) / len(some)
        return Split(key, str(source.path), loader.units, round(mean * len(source.files)), None)
    return Split(key, str(source.path), loader.units, source.path.stat().st_size, sidecar_path(source.path).exists())


def _text_splits(config: RunConfig, data: Data) -> tuple[Split, ...]:
    train, val = config.data.train, config.data.val
    return _text_split("data.train", train, data.train), _text_split("data.val", val, data.val)


def _text_split(key: str, path: str, loader: Any) -> Split:
    """A file without a sidecar is no embedded one, so that its path is a path."""
    size = Path(path).stat().st_size if loader.sidecar is None else loader.sidecar.bytes
    return Split(key, path, loader.units, size, loader.sidecar is not None)


SPLITS: dict[str, Callable[[RunConfig, Data], tuple[Split, ...]]] = {"images": _image_splits, "text": _text_splits}
