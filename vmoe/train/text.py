"""Language modelling: every token from those before it; perplexity, each token counted once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from vmoe.moe.collective import sum_over_processes

from .task import RoutedLabels, Scores, Task


@dataclass(frozen=True)
class TextSize:
    """What a text holds beside its tokens, for figures that compare tokenizers; all of it, first token included."""

    text_bytes: int
    words: int


class TextTask(Task):
    """Tokens (B, N) int64 in, the tokens after them (B, N) as targets; −100, which torch's cross-entropy leaves out,
    where one does not count.

    size: of the text that is evaluated, where it is known.
    """

    UNIT, SHORT, SAMPLE, LABEL = "token", "tok", "sequence", "tokens in the vocabulary"

    def __init__(self, *, vocab_size: int, block_size: int, device: torch.device, size: TextSize | None):
        self.num_labels = vocab_size
        self.device = device
        self.size = size
        self.units_per_sample = block_size
        self.sample = torch.zeros(1, block_size, dtype=torch.int64, device=device)
        self.train_samples = [self.sample]

    def forward(self, network: nn.Module, inputs: Tensor) -> Tensor:
        logits: Tensor = network(input_ids=inputs, use_cache=False).logits
        return logits

    def prepare(self, inputs: Tensor) -> Tensor:
        return inputs

    def training_loss(self, network: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        logits = self.forward(network, inputs)
        return functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    def count(self, targets: Tensor) -> int:
        return int((targets >= 0).sum())

    def scorer(self) -> Perplexity:
        return Perplexity(self.device, self.size)

    def routed_labels(self, inputs: Tensor, targets: Tensor) -> RoutedLabels:
        counted = (targets >= 0).flatten()
        return RoutedLabels(inputs.flatten(), None if bool(counted.all()) else counted)


class Perplexity:
    """perplexity: e to the mean loss of a token. bits_per_byte, word_perplexity: of the summed loss over the text's
    bytes and over its words, so that tokenizers compare; None where its size is not known.
    """

    def __init__(self, device: torch.device, size: TextSize | None):
        self.loss = torch.zeros((), dtype=torch.float64, device=device)
        self.tokens = torch.zeros((), dtype=torch.int64, device=device)
        self.size = size

    def update(self, logits: Tensor, targets: Tensor) -> None:
        losses = functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")
        self.loss += losses.double().sum()
        self.tokens += (targets >= 0).sum()

    def compute(self) -> Scores:
        nats = float(sum_over_processes(self.loss.clone()))
        tokens = int(sum_over_processes(self.tokens.clone()))
        loss = nats / max(tokens, 1)
        perplexity = exponential(loss)
        figures = {
            "perplexity": perplexity,
            "bits_per_byte": nats / math.log(2) / self.size.text_bytes if self.size else None,
            "word_perplexity": exponential(nats / max(self.size.words, 1)) if self.size else None,
            "loss": loss,
            "eval_tokens": tokens,
        }
        shown = "infinite" if perplexity is None else f"{perplexity:,.2f}"
        return Scores(figures, f"perplexity {shown} over {tokens:,} tokens", rank=-loss, units=tokens)


def exponential(loss: float) -> float | None:
    """e to the loss; None beyond what a number holds, as JSON has no infinity."""
    return math.exp(loss) if loss < 700 else None
