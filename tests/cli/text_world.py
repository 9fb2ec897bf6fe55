"""A small world of text for the command line: token files and a config."""

from __future__ import annotations

from pathlib import Path

from world import vmoe

PLAIN = "the cat sat on the mat; and the mat sat on the cat? " * 8 + "no"
CONFIG = """\
task: text
output: runs/text
model: {name: gpt2, kwargs: {n_layer: 2, n_embd: 32, n_head: 2}}
moe: {gate: topk, num_experts: 4, layers: last1}
data: {train: train.tokens, val: val.tokens, block_size: 16, batch_size: 8, eval_batch_size: 4}
optimizer: {lr: 1.0e-2}
schedule: {steps: 24, warmup_steps: 2}
train: {device: cpu, precision: float32, log_every: 4, eval_every_steps: 24}
"""


def make_text_world(folder: Path) -> None:
    """Everything that a run on text needs, in a folder that is the working directory."""
    (folder / "train.txt").write_text(PLAIN * 6)
    (folder / "val.txt").write_text(PLAIN)
    (folder / "text.yaml").write_text(CONFIG)
    for split in ("train", "val"):
        outcome = vmoe("tokens", f"{split}.txt", f"{split}.tokens", "--tokenizer", "bytes", "--workers", "1")
        assert outcome.status == 0, outcome
