"""Writes the page: one file that needs nothing else, whose text is coloured for the first layer also without script."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vmoe.report.page import (
    EIGHT,
    LEVELS,
    THEMES,
    Part,
    as_a_label,
    as_it_reads,
    css_of,
    document,
    embedded,
    escape,
    facts_list,
)

from .routing import TokenRouting
from .summary import LayerSummary, summarise

LEAST_NUMBERED = 0.05  # narrower parts of a bar have no room for a number


def save_token_page(routing: TokenRouting, path: Path) -> Path:
    """Write the page into a file. Returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(token_page(routing), encoding="utf-8")
    return path


def token_page(routing: TokenRouting) -> str:
    """The HTML. Whatever pieces, names and facts hold stays text; no script and no style applies but the page's own."""
    colors = css_of(routing.num_experts)
    return document(routing.title, [Part.from_assets(__package__, "token_page", _body(routing), style=colors)])


def _body(routing: TokenRouting) -> str:
    summaries = [summarise(layer, routing.pieces, routing.num_experts) for layer in routing.layers]
    numbered = routing.num_experts > len(EIGHT)  # more colours than eyes can keep apart
    return f"""<header>
<h1>{escape(routing.title)}</h1>
{facts_list(routing.facts)}
</header>
{_controls(routing, numbered)}
<main>
<p id="status" aria-live="polite">Layer 1 of {len(routing.layers)}: {escape(routing.layers[0].name)}; \
coloured by strongest expert</p>
<div id="text"{' class="numbered"' if numbered else ""} role="group" aria-label="The text, token by token" \
dir="auto">{_text(routing)}</div>
<aside>
<section class="legend">
<div id="by-expert">
<h2>Experts</h2>
<p class="note">Share of the text's tokens that each serves in this layer\
<span data-needs-script hidden>; choose one to see its tokens alone</span>.</p>
{_legend(summaries[0], len(routing.pieces))}
</div>
<div id="by-amount" hidden><h2 id="amount"></h2><ol class="keys" id="scale"></ol></div>
</section>
<section class="by-layer">
<h2>Load by layer</h2>
<p class="note">Each expert's share of the pairs of token and expert.</p>
<ol class="loads" id="loads">{_loads(routing, summaries)}</ol>
</section>
</aside>
</main>
<section id="experts" class="wide" data-needs-script hidden>
<h2>What each expert serves most often in this layer</h2>
<p class="note">Of each token: how many of its occurrences in this text the expert serves.</p>
<ol class="cards" id="cards"></ol>
</section>
<footer data-needs-script hidden>← → previous and next layer. In the text: ← → Home End tokens, ↑ ↓ layers. \
Esc: all experts.</footer>
<div id="tip" role="status" hidden></div>
{_data(routing, summaries)}"""


def _controls(routing: TokenRouting, numbered: bool) -> str:
    layers = "".join(f'<option value="{i}">{escape(layer.name)}</option>' for i, layer in enumerate(routing.layers))
    return f"""<div class="controls" data-needs-script hidden><div>
<label><span class="word">Colour</span> <select id="mode"><option value="expert">strongest expert</option>\
<option value="count">number of experts</option><option value="loss">loss</option></select></label>
<label><input type="checkbox" id="numbers"{" checked" if numbered else ""}> numbers</label>
<span class="layers"><label><span class="word">Layer</span> <select id="layer">{layers}</select></label>
<button type="button" id="previous" aria-label="Previous layer">←</button>\
<button type="button" id="next" aria-label="Next layer">→</button></span>
{THEMES}
</div></div>"""


def _text(routing: TokenRouting) -> str:
    spans = []
    for piece, experts in zip(routing.pieces, routing.layers[0].experts, strict=True):
        newline = " nl" if "\n" in piece and piece.isspace() else ""
        color = f"e{experts[0]}" if experts else "none"
        spans.append(f'<span class="t{newline} {color}">{escape(piece)}</span>')
    return "".join(spans)


def _legend(summary: LayerSummary, tokens: int) -> str:
    rows = []
    for expert, served in enumerate(summary.served):
        bar = f'<rect class="f{expert}" data-part width="{100 * served / tokens:.2f}%" height="100%"/>'
        rows.append(
            f'<li><button type="button" class="key" data-expert="{expert}" aria-pressed="false">'
            f'<span class="chip e{expert}">{expert}</span>'
            f'<svg class="bar" aria-hidden="true"><rect class="all" width="100%" height="100%"/>{bar}</svg>'
            f'<span class="share">{100 * served / tokens:.1f} %</span></button></li>'
        )
    rows.append(
        '<li><span class="key" data-expert="none"><span class="chip none">–</span><span>no expert</span>'
        f'<span class="share">{100 * summary.unserved / tokens:.1f} %</span></span></li>'
    )
    return f'<ol class="keys" id="keys">{"".join(rows)}</ol>'


def _loads(routing: TokenRouting, summaries: Sequence[LayerSummary]) -> str:
    rows = []
    for index, (layer, summary) in enumerate(zip(routing.layers, summaries, strict=True)):
        parts, start = [], 0.0
        for expert, share in enumerate(summary.load):
            if not share:
                continue
            name = f"<title>expert {expert}: {share:.1%}</title>"
            parts.append(f'<rect class="f{expert}" x="{start:.2%}" width="{share:.2%}" height="100%">{name}</rect>')
            if share >= LEAST_NUMBERED:
                parts.append(f'<text x="{start + share / 2:.2%}" y="70%">{expert}</text>')
            start += share
        rows.append(
            f'<li><button type="button" class="load" data-layer="{index}" aria-pressed="{str(index == 0).lower()}">'
            f'{escape(layer.name)}<svg aria-hidden="true">{"".join(parts)}</svg></button></li>'
        )
    return "".join(rows)


def _data(routing: TokenRouting, summaries: Sequence[LayerSummary]) -> str:
    """For the script. Reals have four digits."""
    content = {
        "levels": LEVELS,
        "pieces": routing.pieces,
        "labels": [as_a_label(piece) for piece in routing.pieces],
        "losses": [None if loss is None else _short(loss) for loss in routing.losses],
        "layers": [
            {
                "name": as_it_reads(layer.name),
                "experts": layer.experts,
                "weights": [[_short(weight) for weight in weights] for weights in layer.weights],
                "served": summary.served,
                "strongest": summary.strongest,
                "unserved": summary.unserved,
                "frequent": [[[one.first, one.count, one.of] for one in row] for row in summary.frequent],
            }
            for layer, summary in zip(routing.layers, summaries, strict=True)
        ],
    }
    return embedded("data", content)


def _short(value: float) -> float:
    return float(f"{value:.4g}")
