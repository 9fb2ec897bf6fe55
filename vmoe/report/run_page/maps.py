"""Images with their routing, of runs that keep some."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path

from vmoe.report.page import Part
from vmoe.report.page.png import png
from vmoe.report.routing_maps import ROUTING_MAPS, ImageRouting, keep, maps_part, save_map_pngs
from vmoe.report.run_files import RunFiles

from .blocks import Absent, Section, links, plain
from .drawing import Drawings, Drawn, Job
from .reasons import why

KEY, TITLE = "maps", "Where patches go"  # as `maps_part` has them
LARGEST = 5_000_000  # characters of a page's maps, about: a page must open at once
FAVOURITES = 256  # patches of a layer that `maps_part` shows, about
IN_A_PICTURE = 8  # images


@dataclass(frozen=True)
class Maps:
    """In the place of a section: the maps' own, whose style and script the page takes from `part`.

    routing: of which `part` shows `shown` images.
    """

    routing: ImageRouting
    shown: int
    part: Part
    key: str = KEY
    title: str = TITLE

    def html(self, drawn: Drawings) -> str:
        of = len(self.routing.images)
        some = f'<p class="caption">{self.shown} of the {of} images of {ROUTING_MAPS}.</p>' if self.shown < of else ""
        return f'<div class="wide">{self.part.body}{some}</div>'

    def jobs(self, folder: Path) -> dict[str, Job]:
        """For each layer its PNGs."""
        few = keep(self.routing, IN_A_PICTURE)
        return {f"{KEY}-{number}": partial(_save, few, number, folder) for number in range(len(few.layers))}

    def markdown(self, drawn: Drawings) -> str:
        names = [name for key, one in drawn.items() if key.startswith(f"{KEY}-") for name in one.pictures]
        caption = (
            "Images beside themselves with each patch in the colour of its strongest expert, and the patches that each "
            "expert weighs most."
        )
        pictures = links({name: name.removesuffix(".png") for name in names})
        return "\n\n".join([f"## {plain(self.title)}", *pictures, caption]) + "\n"


def maps(files: RunFiles) -> Section | Maps:
    if files.maps is None:
        return Section(KEY, TITLE, [Absent(f"No images with their routing: {why(files, ROUTING_MAPS)}")])
    shown = keep(files.maps, _fitting(files.maps))
    return Maps(files.maps, len(shown.images), maps_part(shown))


def _fitting(routing: ImageRouting) -> int:
    """How many images have room in `LARGEST` characters: a picture each, two bytes a weight, and the favourites."""
    weights = sum(int((layer.weights >= 0).sum()) for layer in routing.layers) / len(routing.images)
    favourites = sum(FAVOURITES * prod(one.patches.shape[2:]) for one in routing.favourites)
    room = LARGEST * 3 / 4 - favourites  # base64 takes four characters for three bytes
    return max(1, int(room // (len(png(routing.images[0])) + 2 * weights)))


def _save(routing: ImageRouting, number: int, folder: Path) -> Drawn:
    layer = replace(
        routing, layers=routing.layers[number : number + 1], favourites=routing.favourites[number : number + 1]
    )
    try:
        return Drawn("", tuple(path.name for path in save_map_pngs(layer, folder)))
    except ValueError:  # of values that no picture can show; the page shows the maps themselves
        return Drawn("")
