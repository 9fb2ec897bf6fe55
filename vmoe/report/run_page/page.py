"""Writes a run's page: one file that needs nothing else, its figures as PNGs beside it, and the same in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vmoe.report.metrics import Metrics
from vmoe.report.page import THEMES, Part, document, escape
from vmoe.report.run_files import RunFiles

from .blocks import ByLayer, Section, Words, draw_sections, plain
from .by_layer import positions, together
from .classes import classes, has_classes
from .labels import labels
from .load import load, table
from .maps import Maps, maps
from .over_time import History, changes, density, entropy
from .over_time import load as load_over_time
from .overview import overview
from .record import Listed, record
from .speed import speed
from .training import training

PAGE, MARKDOWN = "index.html", "report.md"
PROBLEMS = "problems"  # the section's key


def save_run_page(files: RunFiles, folder: Path) -> Path:
    """Write index.html, report.md and the PNGs into the folder. Returns the path of the page."""
    folder.mkdir(parents=True, exist_ok=True)
    sections = sections_of(files)
    shown = [section for section in sections if isinstance(section, Maps)]
    further = {name: one for maps_section in shown for name, one in maps_section.jobs(folder).items()}
    drawn = draw_sections([section for section in sections if isinstance(section, Section)], folder, further)
    body = "\n".join([_head(files, sections), *(section.html(drawn) for section in sections)])
    parts = [
        *(Part("", one.part.style, one.part.script) for one in shown),
        Part.from_assets(__package__, "run_page", body),
    ]
    page = folder / PAGE
    page.write_text(document(files.name, parts), encoding="utf-8")
    text = "\n".join([f"# {plain(files.name)}\n", *(section.markdown(drawn) for section in sections)])
    (folder / MARKDOWN).write_text(text, encoding="utf-8")
    return page


def sections_of(files: RunFiles) -> list[Section | Maps]:
    """In their order; each stands without the others."""
    found: list[Section | Maps] = [Section("overview", "At a glance", overview(files, problems=PROBLEMS))]
    found.append(Section("training", "Training", [*training(files), *speed(files)]))
    if has_classes(files):
        found.append(Section("classes", "Accuracy by class", classes(files)))
    if files.routes:
        found += _routing(files)
    else:
        told = "This model has no experts to choose from: every token passes through the same MLP."
        found.append(Section("load", "Routing", [Words(told)]))
    found.append(Section("record", "Config and environment", record(files)))
    if files.problems:
        found.append(Section(PROBLEMS, "What is missing or damaged", [Listed(files.problems)]))
    return found


def _routing(files: RunFiles) -> list[Section | Maps]:
    history = History.of(files.metrics or Metrics())
    over_time = [*density(files, history), entropy(files, history), load_over_time(files, history), changes(files)]
    found: list[Section | Maps] = [
        Section("load", "Load of experts", load(files)),
        Section("over-time", "Routing over training", over_time),
        Section("experts", "What experts do", [together(files), positions(files), *labels(files)]),
    ]
    if files.task is None or files.task.maps:
        found.append(maps(files))
    return [*found, Section("layers", "Figures by layer", [table(files)])]


def _head(files: RunFiles, sections: Sequence[Section | Maps]) -> str:
    links = "".join(f'<li><a href="#{section.key}">{escape(section.title)}</a></li>' for section in sections)
    blocks = [block for section in sections if isinstance(section, Section) for block in section.blocks]
    layers = dict.fromkeys(one.layer for block in blocks if isinstance(block, ByLayer) for one in block.layers)
    options = "".join(f'<option value="{escape(layer)}">{escape(layer)}</option>' for layer in layers)
    chooser = (
        f'<span class="layers"><label><span class="word">Layer</span> <select id="layer-of-figures">{options}'
        '<option value="">all layers</option></select></label>\n<button type="button" id="layer-before" '
        'aria-label="Previous layer">←</button><button type="button" id="layer-after" aria-label="Next layer">→'
        "</button></span>"
    )
    return f"""<header>
<h1>{escape(files.name)}</h1>
<nav aria-label="Sections"><ul class="contents">{links}</ul></nav>
</header>
<div class="controls" data-needs-script hidden><div>
{chooser if len(layers) > 1 else ""}
{THEMES}
</div></div>"""
