"""Runs on text: a GPT-2 host, token files."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vmoe.config import ConfigError, RunConfig, TextRunConfig
from vmoe.config.schema import TextEntry
from vmoe.data.tokens import (
    Description,
    TokenLoader,
    open_token_evaluation,
    open_token_loaders,
    open_tokenizer,
)
from vmoe.data.tokens.gpt2_vocabulary import DESCRIPTION, VOCAB_SIZE
from vmoe.data.tokens.tokenizer import check_same
from vmoe.train.distributed import Processes
from vmoe.train.probe import Probe
from vmoe.train.task import Task
from vmoe.train.text import TextSize, TextTask

from .base import Assembly, Data, Entry, Start
from .judging import Judge, Judging


class TextAssembly(Assembly[TextRunConfig]):
    ENTRY = TextEntry
    IN_ANY_WEIGHTS = frozenset({"dropout"})
    PIPELINE = "text-generation"
    SAME_HOST = "the same model.name, model.kwargs, vocabulary, bias and data.block_size; model.dropout may differ"

    def open_data(self, processes: Processes) -> Data:
        config = self.config
        loaders = open_token_loaders(
            config.data,
            seed=config.seed,
            batch_size=self.micro_batch_size(processes),
            accumulate=config.train.accumulate,
            processes=processes,
        )
        return Data(loaders.train, loaders.val, self.entry(loaders.train.tokenizer, loaders.train.vocab_size))

    def check_judging(self, judging: Judging, entry: Entry, name: str) -> None:
        if asked := [option for option, is_asked in judging.options.items() if is_asked]:
            raise ConfigError(f"{asked[0]} is for models of images, and {name} is one of text; allowed: without it")

    def judge(self, judging: Judging, task: Task, loader: Any, device: torch.device) -> Judge:
        return Judge(task.scorer, None)

    def open_evaluation(self, entry: Entry, processes: Processes, judging: Judging) -> TokenLoader:
        return open_token_evaluation(self.config.data, tokenizer=entry["tokenizer"], processes=processes)

    def entry(self, tokenizer: Description, vocab_size: int) -> Entry:
        """A checkpoint's entry about text in these tokens."""
        return {"tokenizer": tokenizer, "vocab_size": vocab_size, "block_size": self.config.data.block_size}

    def task(self, entry: Entry, loader: Any, device: torch.device) -> TextTask:
        sidecar = loader.sidecar
        return TextTask(
            vocab_size=self.model_arguments(entry)["vocab_size"],
            block_size=self.config.data.block_size,
            device=device,
            size=None if sidecar is None else TextSize(sidecar.text_bytes, sidecar.words),
        )

    def model_arguments(self, entry: Entry) -> dict[str, Any]:
        model, needed = self.config.model, entry["vocab_size"]
        if model.vocab_size is not None and model.vocab_size < needed:
            raise ConfigError(
                f"model.vocab_size is {model.vocab_size}; allowed: null, or at least {needed}, which the data's"
                " tokenizer has"
            )
        chosen = {
            "vocab_size": model.vocab_size or needed,
            "block_size": self.config.data.block_size,
            "bias": model.bias,
            "dropout": model.dropout,
        }
        set_by = {"block_size": "data.block_size"} | {key: f"model.{key}" for key in ("vocab_size", "bias", "dropout")}
        return self.merge_arguments(chosen, set_by)

    def check_host(self, host: nn.Module) -> None:
        """Sequence and vocabulary are the model's by its arguments."""

    def check_entry(self, start: Start, entry: Entry) -> None:
        check_same(entry["tokenizer"], "data.train", start.data["tokenizer"], f"model.weights, {start.path},")

    def with_data_of(self, start: Start) -> RunConfig:
        data = self.config.data.model_copy(update={"block_size": start.data["block_size"]})
        return self.config.model_copy(update={"data": data})

    def pretrained(self, name: str) -> tuple[RunConfig, Entry]:
        config = self.config
        if name != config.model.name:
            raise ConfigError(f"the source is {name}, the config's model is {config.model.name}; allowed: the same")
        return config, self.entry(DESCRIPTION, VOCAB_SIZE)

    def label_names(self, entry: Entry) -> tuple[str, ...]:
        """Each token's text, or its id where the vocabulary cannot be had."""
        size = self.model_arguments(entry)["vocab_size"]
        try:
            tokenizer = open_tokenizer(entry["tokenizer"])
        except ValueError:
            return tuple(map(str, range(size)))
        return (*tokenizer.pieces(range(tokenizer.vocab_size)), *map(str, range(tokenizer.vocab_size, size)))

    def token_grid(self, model: nn.Module, positions: torch.Size, entry: Entry) -> None:
        return None

    def routing_maps(self, model: nn.Module, task: Task, entry: Entry, probe: Probe) -> None:
        return None

    def describe_input(self, entry: Entry) -> dict[str, Any]:
        return {"model_config": {}}

    def load_natively(self, source: str) -> None:
        """GPT-2 without biases is no model of transformers."""

    @staticmethod
    def overrides_for(path: str) -> list[str]:
        return [f"data.val={path}"]
