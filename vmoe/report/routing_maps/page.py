"""A page of its own for some images, and pictures of the same for papers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from vmoe.report.page import THEMES, Part, document, escape, facts_list

from .part import maps_part
from .routing import ImageRouting


def save_image_page(routing: ImageRouting, title: str, facts: Mapping[str, str], path: Path) -> Path:
    """Write the page: one file that needs nothing else. facts: what a reader should know, such as the checkpoint.

    Returns the path.
    """
    header = f"""<header>
<h1>{escape(title)}</h1>
{facts_list(facts)}
<p data-needs-script hidden>{THEMES}</p>
</header>"""
    path.parent.mkdir(parents=True, exist_ok=True)
    maps = maps_part(routing)
    path.write_text(document(title, [Part(header), replace(maps, body=f"<main>{maps.body}</main>")]), "utf-8")
    return path


def save_map_pngs(routing: ImageRouting, folder: Path, prefix: str = "") -> list[Path]:
    """For each layer a PNG of the images with their patches by strongest expert, and one of its favourites if there are
    any: PREFIXLAYER-maps.png and PREFIXLAYER-favourites.png. Returns their paths.

    Raises `ImportError` without matplotlib.
    """
    from vmoe.report.plots import favourite_patches, routing_maps, save_png

    paths = []
    for number, layer in enumerate(routing.layers):
        stem = prefix + re.sub(r"[^\w.-]", "_", layer.name)
        ax = routing_maps(routing.images, layer.weights, layer.grid, title=layer.name)
        paths.append(save_png(ax, folder / f"{stem}-maps.png"))
        if routing.favourites:
            patches, weights = routing.favourites[number].patches, routing.favourites[number].weights
            ax = favourite_patches(patches, title=f"{layer.name}: what each expert weighs most", weights_EK=weights)
            paths.append(save_png(ax, folder / f"{stem}-favourites.png"))
    return paths
