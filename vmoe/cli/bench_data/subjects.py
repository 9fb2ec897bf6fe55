"""What is timed of each task's data: which loaders can read them, and what happens to a batch before the model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from torch import Tensor, nn

from vmoe.config import ImageRunConfig, RunConfig, TextRunConfig
from vmoe.data import DataError, Share
from vmoe.data.loader import cores
from vmoe.data.stages import Measured, measure_images, measure_tokens
from vmoe.train.distributed import Processes
from vmoe.train.task import Task

from ..doctor.reading import reading_of
from ..tasks import Data, assembly_of

SMALL = 64  # images a batch of the timed loaders, where the config's are larger, so that the first ones come soon
A_WORKER = 8  # images that each worker has of a batch, at least

Config = TypeVar("Config", bound=RunConfig)


class Subject(ABC, Generic[Config]):
    """A config's data. processes: which one of how many a run will have.

    loaders: names of those that may read the data, the config's own first.
    """

    loaders: Sequence[str]

    def __init__(self, config: Config, processes: Processes):
        self.config = config
        self.processes = processes
        self.micro_batch_size = assembly_of(config).micro_batch_size(processes)

    @abstractmethod
    def config_for(self, loader: str) -> Config:
        """The config with that loader, as it is timed: on the largest images, where a run's grow."""

    @abstractmethod
    def measure(self, loader: str, data: Data, seconds: float, batches: int) -> Measured:
        """Time the training loader and its parts."""

    @abstractmethod
    def blank(self, task: Task) -> nn.Module | None:
        """A network that costs nothing, which leaves of a training step what happens to samples before the model; None
        where nothing does.
        """


class Images(Subject[ImageRunConfig]):
    """Both loaders, each where it can read what the config names."""

    @property
    def loaders(self) -> Sequence[str]:  # type: ignore[override]
        return sorted(("ffcv", "folder"), key=lambda name: name != self.config.data.loader)

    def config_for(self, loader: str) -> ImageRunConfig:
        data = self.config.data
        workers = reading_of(self.config, self.processes.local_world).workers
        size = min(self.micro_batch_size, max(SMALL, A_WORKER * workers))
        batch_size = size * self.processes.world * self.config.train.accumulate
        changed = data.model_copy(update={"loader": loader, "batch_size": batch_size, "progressive": None})
        return self.config.model_copy(update={"data": changed})

    def measure(self, loader: str, data: Data, seconds: float, batches: int) -> Measured:
        return measure_images(
            data.train,
            self.config_for(loader).data,
            processes=self.processes.local_world,
            cores=cores(Share()),
            seconds=seconds,
            batches=batches,
        )

    def blank(self, task: Task) -> nn.Module:
        return _Blank(task.num_labels)


class Text(Subject[TextRunConfig]):
    """The one loader of tokens."""

    loaders = ("tokens",)

    def config_for(self, loader: str) -> TextRunConfig:
        return self.config

    def measure(self, loader: str, data: Data, seconds: float, batches: int) -> Measured:
        tokens: Any = data.train
        return measure_tokens(tokens, seconds=seconds, batches=batches)

    def blank(self, task: Task) -> None:
        return None


SUBJECTS: dict[str, type[Subject[Any]]] = {"images": Images, "text": Text}


class _Blank(nn.Module):
    """Images (B, 3, H, W) to logits (B, C) of 0."""

    def __init__(self, classes: int):
        super().__init__()
        self.classes = classes

    def forward(self, images: Tensor) -> Tensor:
        return images.new_zeros(len(images), self.classes)


def open_each(subject: Subject[Any]) -> tuple[dict[str, Data], dict[str, str]]:
    """The data as each loader opens them, by its name; and why the others cannot.

    Raises `DataError` where none can.
    """
    opened, skipped = {}, {}
    for name in subject.loaders:
        try:
            opened[name] = assembly_of(subject.config_for(name)).open_data(subject.processes)
        except DataError as error:
            skipped[name] = str(error)
    if not opened:
        raise DataError("no loader can read the data:" + "".join(f"\n  {name}: {why}" for name, why in skipped.items()))
    return opened, skipped
