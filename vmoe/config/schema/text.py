"""A run on text: a GPT-2 host and token files."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from .base import Count, Probability, Section
from .run import DataConfig, ModelConfig, RunConfig, TrainConfig

PYTHON = "python"  # in place of a path: the sources of the Python that runs vmoe (vmoe.data.tokens.python_sources)


class Gpt2Config(ModelConfig):
    """The GPT-2 host, transformers' `GPT2LMHeadModel`. The sequence it sees at most comes from `data.block_size`.

    name: its size. kwargs: further arguments of `transformers.GPT2Config`, such as n_embd, n_layer or n_head.
    vocab_size: rows of the embedding, at least the tokenizer's; null takes the tokenizer's own number.
    bias: whether linear layers and norms have one; GPT-2 has, nanoGPT's default has not.
    dropout: of embeddings, attention and residuals alike.
    """

    name: Literal["gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"] = "gpt2"
    vocab_size: Count | None = None
    bias: bool = True
    dropout: Probability = 0.0


class TextDataConfig(DataConfig):
    """Where tokens come from, and what a batch of them is.

    train, val: a file that `vmoe tokens` wrote (or nanoGPT's prepare.py: raw uint16), or ``python``, the sources of
    Python's standard library as bytes, which are written under `cache`.
    block_size: tokens of a sequence. batch_size, eval_batch_size: sequences.
    eval_stride: tokens from one evaluated window to the next, of which each is counted once, in the first window that
    holds it; null takes block_size, so that windows do not overlap.
    """

    block_size: Count = 1024
    batch_size: Count = 480
    eval_batch_size: Count = 8
    eval_stride: Count | None = None

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.eval_stride is not None and self.eval_stride > self.block_size:
            raise ValueError(
                f"eval_stride is {self.eval_stride}; allowed: at most block_size, {self.block_size}, or null"
            )
        return self


class TextTrainConfig(TrainConfig):
    """As for every run; a sample is a sequence, so fewer of them are probed."""

    probe_samples: Annotated[int, Field(ge=0)] = 16


class TextEntry(Section):
    """What a checkpoint says of its data. tokenizer: `Tokenizer.describe`'s words. block_size: as in `data`."""

    tokenizer: dict[str, str | None]
    vocab_size: Count
    block_size: Count


class TextRunConfig(RunConfig):
    """Language modelling: every token from those before it."""

    task: Literal["text"]
    model: Gpt2Config
    data: TextDataConfig
    train: TextTrainConfig = TextTrainConfig()

    @model_validator(mode="after")
    def _causal(self) -> Self:
        try:
            self.moe.check_causal()
        except ValueError as error:
            raise ValueError(f"moe.{error}") from None
        return self
