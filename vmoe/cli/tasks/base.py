"""What a config of any task is turned into: data, a model, and what a checkpoint says of both."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from types import ModuleType
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from vmoe import __version__
from vmoe.api import load_weights
from vmoe.backbones import backbone_of_name
from vmoe.backbones.size import MOST_TENSORS, check_arguments, check_size, memory
from vmoe.config import ConfigError, RunConfig, parse_moe, validate
from vmoe.moe import MoESpec
from vmoe.report.routing_maps import ImageRouting
from vmoe.train.checkpoint import FORMAT, counting_weights
from vmoe.train.distributed import Processes
from vmoe.train.loaders import Loader
from vmoe.train.probe import Probe
from vmoe.train.task import Task

from .judging import Judge, Judging

Entry = dict[str, Any]
"""What a checkpoint says of its data, from which the model's input and output follow: classes, or the tokenizer."""

Config = TypeVar("Config", bound=RunConfig)


class Data(NamedTuple):
    """Loaders of a run, and the checkpoint's entry about them."""

    train: Loader
    val: Loader
    entry: Entry


@dataclasses.dataclass(frozen=True)
class Start:
    """A checkpoint to start from.

    path: what it is called in errors. name, kwargs, moe: of its model. data: the checkpoint's entry of that name.
    weights: those that its run evaluated.
    """

    path: str
    name: str
    kwargs: dict[str, Any]
    moe: MoESpec
    data: Entry
    weights: dict[str, Tensor]

    @classmethod
    def of(cls, stored: dict[str, Any], path: str) -> Start:
        """Of a checkpoint that has been read."""
        model = stored["model"]
        moe = parse_moe(model["moe"])
        return cls(path, model["name"], model["kwargs"], moe, stored["data"], counting_weights(stored))

    @property
    def is_host(self) -> bool:
        """Whether it is the dense model with its own MLPs, which MoE layers can be put into."""
        return self.moe.keeps_host


class Assembly(ABC, Generic[Config]):
    """Makes of one config what the commands work with.

    ENTRY: the schema of what a checkpoint says of its data.
    IN_ANY_WEIGHTS: arguments of the model that do not decide whether weights fit it. SAME_HOST: what of a config does,
    for errors. PIPELINE: what the Hugging Face hub calls the task.
    """

    ENTRY: ClassVar[type]
    IN_ANY_WEIGHTS: ClassVar[frozenset[str]]
    SAME_HOST: ClassVar[str]
    PIPELINE: ClassVar[str]

    def __init__(self, config: Config):
        self.config = config

    @abstractmethod
    def open_data(self, processes: Processes) -> Data:
        """The run's loaders. Raises `ValueError` for data that cannot be trained on as asked."""

    @abstractmethod
    def check_judging(self, judging: Judging, entry: Entry, name: str) -> None:
        """Raise `ConfigError` where a model of that entry cannot be judged so. name: of its checkpoint."""

    @abstractmethod
    def open_evaluation(self, entry: Entry, processes: Processes, judging: Judging) -> Loader:
        """The loader of data.val for a model of that entry. Raises `ValueError` for data it cannot be evaluated on."""

    @abstractmethod
    def judge(self, judging: Judging, task: Task, loader: Loader, device: torch.device) -> Judge:
        """What judges the task's model on the loader that `open_evaluation` gave, for one evaluation or several."""

    @abstractmethod
    def task(self, entry: Entry, loader: Loader, device: torch.device) -> Task:
        """What the model learns. loader: of the evaluation."""

    @abstractmethod
    def model_arguments(self, entry: Entry) -> dict[str, Any]:
        """The arguments of the backbone's `create_host` that follow from the config, `pretrained` aside."""

    @abstractmethod
    def check_host(self, host: nn.Module) -> None:
        """Raise `ConfigError` where the data do not fit the model."""

    @abstractmethod
    def check_entry(self, start: Start, entry: Entry) -> None:
        """Raise `ConfigError` unless weights to start from were trained on data of the same kind."""

    @abstractmethod
    def with_data_of(self, start: Start) -> RunConfig:
        """The config with what comes along with trained weights: input sizes, normalisation."""

    @abstractmethod
    def pretrained(self, name: str) -> tuple[RunConfig, Entry]:
        """The config for the library's pretrained model of that name, and what that was trained on.

        Raises `ConfigError` where there is none, or where the config's model is another.
        """

    @abstractmethod
    def label_names(self, entry: Entry) -> tuple[str, ...]:
        """What the task's labels are called for people."""

    @abstractmethod
    def token_grid(self, model: nn.Module, positions: torch.Size, entry: Entry) -> tuple[int, int, int] | None:
        """Where a sequence's tokens lie in an image: how many come before the first patch, rows and columns of patches;
        None where they lie in none, or not in its order.
        """

    @abstractmethod
    def routing_maps(self, model: nn.Module, task: Task, entry: Entry, probe: Probe) -> ImageRouting | None:
        """The probe's samples as pictures with their routing; None for a task that has no pictures."""

    @abstractmethod
    def describe_input(self, entry: Entry) -> dict[str, Any]:
        """What an exported model's config.json says of its input and labels, as `save_folder` of the backbone takes it;
        `model_config` is a mapping.
        """

    @abstractmethod
    def load_natively(self, source: str) -> str | None:
        """Python that loads an exported dense model by its own library; None where that cannot be. source: its name on
        the hub.
        """

    @staticmethod
    @abstractmethod
    def overrides_for(path: str) -> list[str]:
        """The keys that put other data in the place of data.val."""

    def check_stored(self, model: dict[str, Any], data: Any, path: str) -> None:
        """Raise `ConfigError` where a checkpoint's model is not that of its own config, which this is, and its data."""
        entry: Any = validate(self.ENTRY, data, f"{path}: data")
        config, there = self.config, {**model["kwargs"]}
        here = self.model_arguments(entry.model_dump())
        keys = [key for key in {**here, **there} if key not in self.IN_ANY_WEIGHTS and here.get(key) != there.get(key)]
        listed = [f"model.kwargs.{key} is {there.get(key)!r}, and {here.get(key)!r} by its config" for key in keys]
        if model["name"] != config.model.name:
            listed.insert(0, f"model.name is {model['name']!r}, and {config.model.name!r} by its config")
        settings = config.data.model_dump(mode="json")
        for key in (key for key, value in entry.model_dump().items() if key in settings and value != settings[key]):
            listed.append(f"data.{key} is another than that of its config")
        try:
            moe = parse_moe(model["moe"])
        except ValueError as error:
            raise ConfigError(f"{path}: model.{error}") from None
        if moe != config.moe:
            listed.append("model.moe is another than that of its config")
        if listed:
            raise ConfigError(f"{path}: what it says of its model does not go together: {'; '.join(listed)[:500]}")

    @property
    def backbone(self) -> ModuleType:
        """The adapter of the model's library."""
        return backbone_of_name(self.config.model.name)

    def micro_batch_size(self, processes: Processes) -> int:
        """Samples of one forward on one process. Raises `ConfigError` where the batch cannot be split so."""
        config = self.config
        batch, parts = config.data.batch_size, processes.world * config.train.accumulate
        if batch % parts:
            raise ConfigError(
                f"data.batch_size is {batch}; allowed: a multiple of {parts}, {processes.world} processes ×"
                f" {config.train.accumulate} micro-batches (train.accumulate)"
            )
        return batch // parts

    def build_model(self, entry: Entry, start: Start | None = None) -> nn.Module:
        """The config's model: the host, then its MoE layers, from torch's global generator.

        start: the checkpoint whose weights it begins with, which `start_of` has held against the config. Those of a
        dense model go into the host, so that MoE layers can be made of it; those of a MoE model go in at the end.
        """
        host, moe = self.build_host(entry, start), self.config.moe
        add_moe = self.backbone.add_moe
        model: nn.Module
        if start is None or start.is_host:
            model = add_moe(host, moe)
        else:
            model = load_weights(add_moe(host, moe, weights_follow=True), start.weights, start.path)
        return model

    def check_size(self, entry: Entry, moe: MoESpec) -> None:
        """Raise `ConfigError` where the weights of the config's model alone take more memory than this machine has."""
        name, arguments, most = self.config.model.name, self.model_arguments(entry), memory()
        check_arguments(self.config.model.kwargs, "model.kwargs")

        def refuse() -> ConfigError:
            return ConfigError(
                f"the model is too large: its weights take more than the {most / 2**30:,.0f} GiB of memory that this"
                f" machine has, or are more than {MOST_TENSORS:,}; allowed: a smaller one, by model.name, model.kwargs,"
                " moe.num_experts, moe.experts.hidden"
            )

        def build() -> nn.Module:
            host = self.backbone.create_host(name, pretrained=False, **arguments)
            model: nn.Module = self.backbone.add_moe(host, moe, weights_follow=True)
            return model

        check_size(build, most // 4, refuse)

    def build_host(self, entry: Entry, start: Start | None = None) -> nn.Module:
        """The dense model that MoE layers are put into, with the weights that are for it."""
        self.check_size(entry, self.config.moe)
        if start is not None:
            self.check_entry(start, entry)
        model = self.config.model
        host: nn.Module = self.backbone.create_host(
            model.name, pretrained=model.pretrained, **self.model_arguments(entry)
        )
        self.check_host(host)
        return load_weights(host, start.weights, start.path) if start is not None and start.is_host else host

    def describe_model(self, entry: Entry) -> dict[str, Any]:
        """The entries of a checkpoint that say what the model is and what it was trained on."""
        config = self.config
        return {
            "format": FORMAT,
            "vmoe": __version__,
            "model": {
                "name": config.model.name,
                "kwargs": self.model_arguments(entry),
                "moe": dataclasses.asdict(config.moe),
            },
            "data": entry,
            "config": config.model_dump(mode="json"),
            "evaluate": config.train.evaluate,
        }

    def merge_arguments(self, chosen: dict[str, Any], set_by: dict[str, str]) -> dict[str, Any]:
        """model.kwargs beside the arguments that other keys set. Raises `ConfigError` where it holds one of those."""
        if clash := sorted(set(set_by) & set(self.config.model.kwargs)):
            raise ConfigError(f"model.kwargs holds {clash[0]}; it is set by {set_by[clash[0]]}")
        return {**chosen, **self.config.model.kwargs}
