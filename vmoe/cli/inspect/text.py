"""A text: every token coloured by its experts."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vmoe.cli.image_routing import active_weights
from vmoe.config import ConfigError
from vmoe.data import Share
from vmoe.data.tokens import Tokenizer, open_tokenizer
from vmoe.data.tokens.windows import EvaluationWindows
from vmoe.moe import moe_layers, record
from vmoe.report.token_page import TokenLayer, TokenRouting, save_token_page
from vmoe.untrusted import NotAFileError, read_file

from .inspected import Inspected

LARGEST_FILE = 2**22  # bytes
LARGEST_TEXT = 20_000  # tokens: a page with more is slow to open
BATCH = 4  # windows of a forward


def inspect_text(inspected: Inspected, options: argparse.Namespace) -> Path:
    """Write the page of a text's tokens, coloured by expert, and return where it is."""
    inspected.refuse("IMAGE", options.images, "allowed: --text")
    if options.text is None:
        raise ConfigError("--text is missing; allowed: a text file, or the text itself")
    data = inspected.stored["data"]
    vocabulary = Path(options.vocabulary) if options.vocabulary else None
    tokenizer = open_tokenizer(data["tokenizer"], vocabulary)
    tokens = tokenizer.encode(read_text(options.text)).astype(np.int64)
    if not 0 < len(tokens) <= LARGEST_TEXT:
        raise ConfigError(f"--text has {len(tokens):,} tokens; allowed: 1 to {LARGEST_TEXT:,}")
    facts = inspected.facts | {"tokens": f"{len(tokens):,} ({tokenizer.kind})"}
    title = f"{inspected.config.output.name}: tokens"
    routing = route_text(inspected.build(), tokenizer, tokens, data["block_size"], title, facts)
    return save_token_page(routing, inspected.page)


def read_text(given: str) -> str:
    """The content of the file of that name, or what was given itself.

    Raises `ConfigError` for a file that is no UTF-8, and for what looks like a file's name where there is none.
    """
    try:
        if Path(given).is_file():
            return read_file(given, LARGEST_FILE).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"--text is '{given}', which is not UTF-8: {error}") from None
    except NotAFileError as error:
        raise ConfigError(f"--text: {error}") from None
    except (OSError, ValueError):  # a text too long for a name, or with characters that none has
        return given
    if Path(given).suffix and " " not in given:
        raise ConfigError(f"--text is '{given}', and there is no such file; allowed: a text file, or the text itself")
    return given


@torch.no_grad()
def route_text(
    model: nn.Module, tokenizer: Tokenizer, tokens: np.ndarray, block_size: int, title: str, facts: dict[str, str]
) -> TokenRouting:
    """How a GPT-2 routes each of the tokens (T,), and how well it told each from those before it.

    Before the text stands an end of text, as between documents. A text longer than a sequence is read in windows that
    overlap by half, and each token counts in the first window that holds it.
    """
    end = tokenizer.end_of_text
    read = torch.from_numpy(np.concatenate([[end], tokens, [end]]))
    stride = max(1, block_size // 2)
    losses: list[Tensor] = []
    parts: dict[str, list[Tensor]] = {name: [] for name, _ in moe_layers(model)}
    with record(model) as routings:
        for windows in EvaluationWindows(len(read), block_size, stride, BATCH, Share()).windows(0):
            offsets = torch.arange(windows.length)
            inputs = read[torch.from_numpy(windows.starts)[:, None] + offsets]
            targets = read[torch.from_numpy(windows.starts)[:, None] + offsets + 1]
            counted = offsets >= torch.from_numpy(windows.ignored)[:, None]
            logits = model(input_ids=inputs, use_cache=False).logits
            losses.append(functional.cross_entropy(logits.mT.float(), targets, reduction="none")[counted])
            for name, routing in routings.items():
                parts[name].append(active_weights(routing)[counted.flatten()])
    return TokenRouting(
        title=title,
        facts=facts,
        pieces=tuple(tokenizer.pieces(tokens)),
        losses=tuple(torch.cat(losses)[:-1].tolist()),
        layers=tuple(describe_layer(name, torch.cat(rows)[1:]) for name, rows in parts.items()),
        num_experts=next(moe_layers(model))[1].experts.num_experts,
    )


def describe_layer(name: str, weights_TE: Tensor) -> TokenLayer:
    """The active experts of each token, strongest first."""
    values_TE, experts_TE = weights_TE.sort(dim=1, descending=True, stable=True)
    counts_T = (values_TE >= 0).sum(1).tolist()
    rows = zip(experts_TE.tolist(), values_TE.tolist(), counts_T, strict=True)
    chosen = [(tuple(experts[:count]), tuple(values[:count])) for experts, values, count in rows]
    return TokenLayer(name, tuple(one[0] for one in chosen), tuple(one[1] for one in chosen))
