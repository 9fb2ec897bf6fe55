"""Images: every patch coloured by its experts, and what the model takes each image for."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vmoe.cli.image_routing import forward_images
from vmoe.cli.labels import label_names
from vmoe.cli.outcome import picture_of
from vmoe.config import ConfigError
from vmoe.data import Normalize
from vmoe.data.errors import missing
from vmoe.data.folder import evaluation_transform
from vmoe.data.images import SUFFIXES, files_in, read_image
from vmoe.report.routing_maps import ImageRouting, keep, save_image_page, save_map_pngs

from .inspected import Inspected

MOST_IMAGES = 64  # a page with more is slow to open
MOST_DRAWN = 16  # in a PNG, for a page of paper
ALLOWED = "allowed: image files, and folders of them"


class Picture(NamedTuple):
    """A file, and what it is called on the page: its path below what was given."""

    file: Path
    name: str


def inspect_images(inspected: Inspected, options: argparse.Namespace) -> Path:
    """Write the page of images, patches coloured by expert, and PNGs beside it; return where the page is."""
    inspected.refuse("--text", options.text, ALLOWED)
    inspected.refuse("--vocabulary", options.vocabulary, ALLOWED)
    entry = inspected.stored["data"]
    found = find_pictures(options.images)
    pictures = [found[i] for i in np.linspace(0, len(found) - 1, min(len(found), MOST_IMAGES)).round().astype(int)]
    transform = evaluation_transform(entry["image_size"], entry["eval_crop"])
    images = torch.stack([transform(read_image(str(picture.file))) for picture in pictures])
    forwarded = forward_images(inspected.build(), images, Normalize(entry["mean"], entry["std"]))
    if not forwarded.layers:
        raise ConfigError(
            f"{inspected.path} holds {inspected.config.model.name}, whose MoE layers see patches in no known"
            f" order: {', '.join(forwarded.left_out)}; allowed: a model that keeps them in rows and columns"
        )
    routing = ImageRouting(
        images=images.permute(0, 2, 3, 1).numpy(),
        names=tuple(picture.name for picture in pictures),
        labels=predictions(forwarded.logits, entry["classes"], pictures),
        layers=forwarded.layers,
        left_out=forwarded.left_out,
    )
    routing = keep(routing, MOST_IMAGES)
    number = f"{len(pictures)}" if len(pictures) == len(found) else f"{len(pictures)} of {len(found):,}, evenly spaced"
    title = f"{inspected.config.output.name}: images"
    save_image_page(routing, title, inspected.facts | {"images": number}, inspected.page)
    with picture_of("routing maps"):
        save_map_pngs(keep(routing, MOST_DRAWN), inspected.page.parent, f"{inspected.page.stem}-")
    return inspected.page


def find_pictures(given: Sequence[str]) -> list[Picture]:
    """The files, and those in folders and their folders, in sorted order.

    Raises `ConfigError` or `DataError`: nothing given, a path that does not exist, a folder without images.
    """
    if not given:
        raise ConfigError(f"no image is given; {ALLOWED}")
    pictures = []
    for path in map(Path, given):
        if not path.exists():
            raise missing("IMAGE", path, "an image file, or a folder of them")
        if path.is_dir():
            files, _ = files_in(path)
            if not files:
                raise ConfigError(f"IMAGE is '{path}', which holds no image; allowed: {', '.join(sorted(SUFFIXES))}")
            pictures += [Picture(Path(file), str(Path(file).relative_to(path))) for file in files]
        else:
            pictures.append(Picture(path, path.name))
    return pictures


def predictions(logits: Tensor, classes: Sequence[str], pictures: Sequence[Picture]) -> tuple[str, ...]:
    """For each picture the likeliest class and how likely it is; and its folder's, where that is another class."""
    names = dict(zip(classes, label_names(classes), strict=True))
    best = logits.softmax(dim=1).max(dim=1)
    labels = []
    for picture, share, number in zip(pictures, best.values.tolist(), best.indices.tolist(), strict=True):
        folder = picture.file.absolute().parent.name
        other = f"; folder: {names[folder]}" if folder in names and folder != classes[number] else ""
        labels.append(f"{names[classes[number]]}, {share:.0%}{other}")
    return tuple(labels)
