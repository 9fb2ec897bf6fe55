"""What a page is made of, each block as HTML and as Markdown: figures, tables, words."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from vmoe.report.html_table import html_table
from vmoe.report.page import escape
from vmoe.report.table import Table

from .drawing import Drawing, Drawings, Job, job, run_all

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Draw = Callable[[], "Axes"]


class Block(Protocol):
    """drawn: at least what `drawings` asked for, under the same names, which are those of the PNGs."""

    def drawings(self) -> Mapping[str, Drawing]: ...

    def html(self, drawn: Drawings) -> str: ...

    def markdown(self, drawn: Drawings) -> str: ...


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading. key: a word, unique in the page, that links to it."""

    key: str
    title: str
    blocks: Sequence[Block]

    def drawings(self) -> dict[str, Drawing]:
        return {name: drawing for block in self.blocks for name, drawing in block.drawings().items()}

    def html(self, drawn: Drawings) -> str:
        blocks = "\n".join(block.html(drawn) for block in self.blocks)
        heading = f"<h2>{escape(self.title)}</h2>"
        return f'<section class="wide" id="{self.key}">\n{heading}\n<div class="blocks">\n{blocks}\n</div>\n</section>'

    def markdown(self, drawn: Drawings) -> str:
        return "\n".join([f"## {plain(self.title)}\n", *(block.markdown(drawn) for block in self.blocks)])


def draw_sections(sections: Sequence[Section], folder: Path, further: Mapping[str, Job] | None = None) -> Drawings:
    """Every figure of these sections, and PNGs of them in the folder. further: what else is to be done on all cores."""
    jobs = {name: job(one, name, folder) for section in sections for name, one in section.drawings().items()}
    return run_all({**jobs, **(further or {})})


class Undrawn:
    """A block without figures."""

    def drawings(self) -> dict[str, Drawing]:
        return {}


@dataclass(frozen=True)
class Words(Undrawn):
    text: str

    def html(self, drawn: Drawings) -> str:
        return f'<p class="words">{escape(self.text)}</p>'

    def markdown(self, drawn: Drawings) -> str:
        return f"{plain(self.text)}\n"


@dataclass(frozen=True)
class Absent(Undrawn):
    """What stands in the place of something that cannot be shown, and says why."""

    text: str

    def html(self, drawn: Drawings) -> str:
        return f'<p class="absent">{escape(self.text)}</p>'

    def markdown(self, drawn: Drawings) -> str:
        return f"*{plain(self.text)}*\n"


@dataclass(frozen=True)
class Tabled(Undrawn):
    """label: what it is, for those who do not see it."""

    label: str
    table: Table
    caption: str

    def html(self, drawn: Drawings) -> str:
        return f'<div>{html_table(self.table, label=self.label)}\n<p class="caption">{escape(self.caption)}</p></div>'

    def markdown(self, drawn: Drawings) -> str:
        return f"{self.table.markdown()}\n{plain(self.caption)}\n"


@dataclass(frozen=True)
class Plot:
    """A figure with its caption. key: its PNG's name."""

    key: str
    title: str
    draw: Draw
    caption: str

    def drawings(self) -> dict[str, Drawing]:
        return {self.key: Drawing(self.title, self.draw)}

    def html(self, drawn: Drawings) -> str:
        return figure(self.title, drawn[self.key].html, self.caption)

    def markdown(self, drawn: Drawings) -> str:
        pictures = links(dict.fromkeys(drawn[self.key].pictures, self.title))
        return "\n\n".join([f"### {plain(self.title)}", *pictures, plain(self.caption)]) + "\n"


@dataclass(frozen=True)
class Shown:
    """A layer's part of `ByLayer`: a figure, HTML, or both. draw: None without a figure."""

    layer: str
    draw: Draw | None
    body: str = ""


@dataclass(frozen=True)
class ByLayer:
    """The same of every layer, of which the page shows one at a time; without script the first, and those unfolded."""

    key: str
    title: str
    layers: Sequence[Shown]
    caption: str

    def drawings(self) -> dict[str, Drawing]:
        return {
            self._name(number): Drawing(f"{self.title}: {one.layer}", one.draw)
            for number, one in enumerate(self.layers)
            if one.draw is not None
        }

    def html(self, drawn: Drawings) -> str:
        parts = []
        for number, one in enumerate(self.layers):
            drawing = "" if one.draw is None else drawn[self._name(number)].html
            opened = " open" if number == 0 else ""
            head = f'<details data-layer="{escape(one.layer)}"{opened}><summary>{escape(one.layer)}</summary>'
            parts.append(f"{head}\n{drawing}{one.body}</details>")
        wide = any(one.draw is None for one in self.layers)
        return figure(self.title, f'<div class="by-layer">{"".join(parts)}</div>', self.caption, wide=wide)

    def markdown(self, drawn: Drawings) -> str:
        asked = self.drawings()
        pictures = links({png: one.title for name, one in asked.items() for png in drawn[name].pictures})
        return "\n\n".join([f"### {plain(self.title)}", *pictures, plain(self.caption)]) + "\n"

    def _name(self, number: int) -> str:
        """Of the layer, in letters that every file system takes, and its number, as no other has."""
        layer = re.sub(r"[^A-Za-z0-9.]+", "_", self.layers[number].layer)[:60].strip("._")
        return f"{self.key}-{number + 1}-{layer}"


def figure(title: str, content: str, caption: str, *, wide: bool = False) -> str:
    """wide: takes the page's whole width, not a column."""
    start = '<figure class="whole">' if wide else "<figure>"
    return f"{start}<h3>{escape(title)}</h3>\n{content}\n<figcaption>{escape(caption)}</figcaption></figure>"


def links(titles: Mapping[str, str]) -> list[str]:
    """Markdown's of pictures, by their names."""
    return [f"![{plain(title)}]({name})" for name, title in titles.items()]


def plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", " ".join(text.split()))
