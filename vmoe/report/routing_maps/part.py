"""The component of a page: pictures with each patch in the colour of its experts; the first layer also without script.

Shapes: n images, P patches an image.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vmoe.report.page import EIGHT, Part, css_of, embedded, escape
from vmoe.report.page.png import png_uri

from .data import frame_of, script_data, shown_favourites
from .routing import ImageRouting, MapLayer
from .summary import NOBODY, LayerSummary, summarise

MOST_NUMBERED = 16  # columns of patches: numbers in more of them are too small to read
COARSE = 96  # pixels of a side; pictures up to that are shown with their pixels
MANY = 16  # experts; the favourites of more of them stand in columns
MOST_CHIPS = 4  # experts named of a token that is no patch


def maps_part(routing: ImageRouting) -> Part:
    """The component, once a page: pictures, legend, favourites, and what chooses what is seen of them.

    Whatever names and labels hold stays text.
    """
    if not routing.layers:
        return Part(f'<section class="maps" id="maps"><h2>Where patches go</h2>{_notes(routing)}</section>')
    return Part.from_assets(__package__, "routing_maps", _body(routing), style=css_of(routing.num_experts))


def _body(routing: ImageRouting) -> str:
    summary = summarise(routing.layers[0])
    return f"""<section class="maps" id="maps">
<h2>Where patches go</h2>
{_notes(routing)}
{_controls(routing)}
<p class="note" id="maps-status" aria-live="polite">Layer 1 of {len(routing.layers)}: \
{escape(routing.layers[0].name)}; each patch in the colour of its strongest expert</p>
<div class="maps-main">
<ol class="pictures" id="maps-pictures">{_pictures(routing, summary)}</ol>
<aside>
<div id="maps-scale" hidden><h3 id="maps-amount"></h3><ol class="keys" id="maps-levels"></ol></div>
<h3>Experts</h3>
<p class="note">Share of these pictures' patches for which each is the strongest; paler, for which it is active. \
Patches without any are left grey.<span data-needs-script hidden> Choose an expert to see its weights.</span></p>
{_legend(summary)}
</aside>
</div>
{_favourites(routing)}
<div id="maps-tip" role="status" hidden></div>
{embedded("maps-data", script_data(routing))}
</section>"""


def _notes(routing: ImageRouting) -> str:
    notes = ["Point at a picture's name to see the picture alone."] if routing.layers else []
    if any(layer.grid[0] for layer in routing.layers):
        notes.append("Below a picture stand the experts of the tokens before its patches, such as the class token.")
    if routing.left_out:
        names = escape(", ".join(routing.left_out))
        notes.append(f"Not shown, since their tokens lie in no known order of the image: {names}.")
    return f'<p class="note">{" ".join(notes)}</p>' if notes else ""


def _controls(routing: ImageRouting) -> str:
    layers = "".join(f'<option value="{i}">{escape(layer.name)}</option>' for i, layer in enumerate(routing.layers))
    numbered = " checked" if _numbered(routing.layers[0]) else ""
    return f"""<div class="controls" data-needs-script hidden><div>
<span class="layers"><label><span class="word">Layer</span> <select id="maps-layer">{layers}</select></label>
<button type="button" id="maps-previous" aria-label="Previous layer">←</button>\
<button type="button" id="maps-next" aria-label="Next layer">→</button></span>
<label><span class="word">Colour</span> <select id="maps-mode"><option value="expert">strongest expert</option>\
<option value="count">number of experts</option><option value="weight">weight of one expert</option></select></label>
<label id="maps-one" hidden><span class="word">Expert</span> <select id="maps-expert"></select></label>
<label>overlay <input type="range" id="maps-opacity" min="0" max="100" value="60"></label>
<label><input type="checkbox" id="maps-numbers"{numbered}> numbers</label>
<label><span class="word">Pictures</span> <select id="maps-size"><option value="small">small</option>\
<option value="medium" selected>medium</option><option value="large">large</option></select></label>
</div></div>"""


def _numbered(layer: MapLayer) -> bool:
    """Whether patches have their experts' numbers from the start: where colours are more than eyes keep apart."""
    return layer.num_experts > len(EIGHT) and layer.grid[2] <= MOST_NUMBERED


def _pictures(routing: ImageRouting, summary: LayerSummary) -> str:
    layer = routing.layers[0]
    prefix, rows, columns = layer.grid
    coarse = " coarse" if max(routing.images.shape[1:3]) <= COARSE else ""
    items = []
    for number, (name, label) in enumerate(zip(routing.names, routing.labels, strict=True)):
        strongest_P = summary.strongest_nP[number]
        numbers = _numbers(strongest_P, columns) if _numbered(layer) else ""
        before = "".join(map(_chips, layer.weights[number, :prefix]))
        title = f"<b>{escape(label)}</b>" if label else ""
        items.append(
            f'<li><figure><div class="picture{coarse}">'
            f'<img src="{png_uri(routing.images[number])}" alt="{escape(name)}">'
            f'<svg class="overlay" viewBox="0 0 {columns} {rows}" preserveAspectRatio="none" role="img"'
            f' aria-label="{escape(name)}: patches by expert"><g class="cells">{_cells(strongest_P, columns)}</g>'
            f'<g class="numbers">{numbers}</g></svg></div>'
            f'<figcaption><div>{title}<span class="count" title="{escape(name)}">{escape(name)}</span></div>'
            f'<span class="before">{before}</span>'
            "</figcaption></figure></li>"
        )
    return "".join(items)


def _cells(strongest_P: NDArray[np.int64], columns: int) -> str:
    """For each expert one path around its patches, in units of patches; a run of them in a row is one step of it."""
    paths: dict[int, list[str]] = {}
    for row, experts in enumerate(strongest_P.reshape(-1, columns).tolist()):
        start = 0
        for column in range(1, columns + 1):
            if column < columns and experts[column] == experts[start]:
                continue
            length = column - start
            paths.setdefault(experts[start], []).append(f"M{start} {row}h{length}v1h-{length}z")
            start = column
    paths.pop(NOBODY, None)
    return "".join(f'<path class="f{expert}" d="{"".join(paths[expert])}"/>' for expert in sorted(paths))


def _numbers(strongest_P: NDArray[np.int64], columns: int) -> str:
    return "".join(
        f'<text x="{patch % columns + 0.5}" y="{patch // columns + 0.5}">{expert}</text>'
        for patch, expert in enumerate(strongest_P.tolist())
        if expert != NOBODY
    )


def _chips(weights_E: NDArray[np.floating]) -> str:
    """The experts of a token that is no patch, strongest first."""
    active = [int(expert) for expert in np.argsort(-weights_E, kind="stable") if weights_E[expert] >= 0]
    chips = "".join(f'<span class="chip e{expert}">{expert}</span>' for expert in active[:MOST_CHIPS])
    more = "…" if len(active) > MOST_CHIPS else ""
    return f'<span class="token">{chips or _NONE}{more}</span>'


_NONE = '<span class="chip none">–</span>'


def _legend(summary: LayerSummary) -> str:
    rows = []
    for expert, (served, strongest) in enumerate(zip(summary.served_E, summary.strongest_E, strict=True)):
        bar = (
            f'<rect class="pale f{expert}" data-served width="{served:.2%}" height="100%"/>'
            f'<rect class="f{expert}" data-strongest width="{strongest:.2%}" height="100%"/>'
        )
        rows.append(
            f'<li><button type="button" class="key" data-expert="{expert}" aria-pressed="false">'
            f'<span class="chip e{expert}">{expert}</span>'
            f'<svg class="bar" aria-hidden="true"><rect class="all" width="100%" height="100%"/>{bar}</svg>'
            f'<span class="share">{100 * strongest:.1f} %</span></button></li>'
        )
    rows.append(
        f'<li><span class="key" data-expert="none">{_NONE}<span>no expert</span>'
        f'<span class="share">{100 * summary.unserved:.1f} %</span></span></li>'
    )
    return f'<ol class="keys" id="maps-keys">{"".join(rows)}</ol>'


def _favourites(routing: ImageRouting) -> str:
    if not routing.favourites:
        return ""
    rows = []
    for expert, pictures in enumerate(shown_favourites(routing, 0)):
        shown = "".join(_favourite(routing, uri, weight) for uri, weight in pictures)
        none = '<span class="count">no patch</span>'
        rows.append(f'<li><span class="chip e{expert}">{expert}</span><div>{shown or none}</div></li>')
    many = ' class="many"' if routing.num_experts > MANY else ""
    return f"""<section class="maps-favourites">
<h3>What each expert weighs most in this layer</h3>
<p class="note">Of all images that were routed, at most two patches of each; the heaviest first.{_framed(routing)}</p>
<ol id="maps-favourites"{many}>{"".join(rows)}</ol>
</section>"""


def _framed(routing: ImageRouting) -> str:
    framed = any(frame_of(routing, number) for number in range(len(routing.layers)))
    return " Small patches are framed in what lies around them." if framed else ""


def _favourite(routing: ImageRouting, uri: str, weight: float) -> str:
    height, width = routing.favourites[0].patches.shape[2:4]
    frame = frame_of(routing, 0)
    rect = "" if frame is None else '<rect class="frame" x="{}" y="{}" width="{}" height="{}"/>'.format(*frame)
    return (
        f'<svg class="favourite" viewBox="0 0 {width} {height}" role="img" aria-label="weight {weight:g}">'
        f'<title>weight {weight:g}</title><image href="{uri}" width="{width}" height="{height}"/>{rect}</svg>'
    )
