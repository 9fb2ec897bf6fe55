"""A small world of files for the command line: image folders, .beton files, configs, a trained run."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

import vmoe as package
from vmoe.cli import main
from vmoe.train.checkpoint import read_checkpoint, save_checkpoint

TIMM = "vit_tiny_patch16_224"  # that `hub_with_weights` has weights of
TRAINED = 1.0  # the θ that Routing-Free runs of `CONFIG` are trained with

CONFIG = """\
output: runs/tiny
model: {name: vit_tiny_patch16_224, kwargs: {patch_size: 4, embed_dim: 32, depth: 2, num_heads: 2}}
moe: {gate: topk, num_experts: 4, layers: last1}
data:
  loader: folder
  train: images/train
  val: images/val
  image_size: 8
  batch_size: 8
  eval_batch_size: 4
  workers: 1
  crop_scale: [1.0, 1.0]
  crop_ratio: [1.0, 1.0]
schedule: {epochs: 1, warmup_epochs: 0}
train: {device: cpu, precision: float32, log_every: 1}
"""


class Outcome(NamedTuple):
    status: int
    out: str
    err: str


def vmoe(*arguments: str) -> Outcome:
    """Run a command as the shell would."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(list(arguments))
        except SystemExit as exit_:  # argparse
            status = int(exit_.code or 0)
    return Outcome(status, out.getvalue(), err.getvalue())


def hub_with_weights(patch: pytest.MonkeyPatch) -> nn.Module:
    """Let timm find pretrained weights of TIMM, as from a network; the model that has them."""
    torch.manual_seed(11)
    host = timm.create_model(TIMM).eval()
    patch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_, **__: host.state_dict())
    return host


def make_images(folder: Path, classes: tuple[str, ...], count: int, size: tuple[int, int] = (8, 8)) -> None:
    """Class folders of PNG files: the later the class, the brighter."""
    generator = np.random.default_rng(0)
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            noise = generator.integers(0, 100, (*size, 3))
            Image.fromarray((noise + 150 * number).astype(np.uint8)).save(folder / name / f"{index}.png")


def make_world(folder: Path) -> None:
    """Everything that a run needs, in a folder that becomes the working directory."""
    make_images(folder / "images/train", ("dark", "light"), 12)
    make_images(folder / "images/val", ("dark", "light"), 5)
    (folder / "tiny.yaml").write_text(CONFIG)


def spread_scores(path: Path) -> None:
    """Change a Routing-Free checkpoint of `CONFIG`: about half of each expert's scores then pass the θ of training."""
    model = package.load(path)
    with package.record(model) as routings, torch.no_grad():
        model(torch.randn(64, 3, 8, 8))
    checkpoint = read_checkpoint(path)
    for layer, routing in routings.items():
        checkpoint["weights"][f"{layer}.gate.bias"] += routing.scores.median(dim=0).values - TRAINED
    save_checkpoint(path, checkpoint, rank=checkpoint["rank"])
