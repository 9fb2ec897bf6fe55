"""Writes the page: one file that needs nothing else, whose text is coloured for the first layer also without script."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from .palette import EIGHT, LEVELS, css_of
from .routing import TokenRouting
from .summary import LayerSummary, summarise
from .visible import as_a_label, as_it_reads

LEAST_NUMBERED = 0.05  # narrower parts of a bar have no room for a number


def save_token_page(routing: TokenRouting, path: Path) -> Path:
    """Write the page into a file. Returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(token_page(routing), encoding="utf-8")
    return path


def token_page(routing: TokenRouting) -> str:
    """The HTML. Whatever pieces, names and facts hold stays text; no script and no style applies but the page's own."""
    summaries = [summarise(layer, routing.pieces, routing.num_experts) for layer in routing.layers]
    style, script = f"\n{_asset('page.css')}{css_of(routing.num_experts)}\n", f"\n{_asset('page.js')}"
    policy = (
        f"default-src 'none'; style-src {_source(style)}; script-src {_source(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    numbered = routing.num_experts > len(EIGHT)  # more colours than eyes can keep apart
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{_escape(routing.title)}</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>{_escape(routing.title)}</h1>
<dl class="facts">{_facts(routing)}</dl>
</header>
{_controls(routing, numbered)}
<main>
<p id="status" aria-live="polite">Layer 1 of {len(routing.layers)}: {_escape(routing.layers[0].name)}; \
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
<section id="experts" data-needs-script hidden>
<h2>What each expert serves most often in this layer</h2>
<p class="note">Of each token: how many of its occurrences in this text the expert serves.</p>
<ol class="cards" id="cards"></ol>
</section>
<footer data-needs-script hidden>← → previous and next layer. In the text: ← → Home End tokens, ↑ ↓ layers. \
Esc: all experts.</footer>
<div id="tip" role="status" hidden></div>
<script type="application/json" id="data">{_data(routing, summaries)}</script>
<script>{script}</script>
</body>
</html>
"""


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _source(content: str) -> str:
    """What allows an inline style or script of exactly this content (Content Security Policy, level 2)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _escape(text: str) -> str:
    return html.escape(as_it_reads(text))


def _facts(routing: TokenRouting) -> str:
    return "".join(f"<dt>{_escape(key)}</dt><dd>{_escape(value)}</dd>" for key, value in routing.facts.items())


def _controls(routing: TokenRouting, numbered: bool) -> str:
    layers = "".join(f'<option value="{i}">{_escape(layer.name)}</option>' for i, layer in enumerate(routing.layers))
    return f"""<div id="controls" data-needs-script hidden><div>
<label><span class="word">Colour</span> <select id="mode"><option value="expert">strongest expert</option>\
<option value="count">number of experts</option><option value="loss">loss</option></select></label>
<label><input type="checkbox" id="numbers"{" checked" if numbered else ""}> numbers</label>
<span class="layers"><label><span class="word">Layer</span> <select id="layer">{layers}</select></label>
<button type="button" id="previous" aria-label="Previous layer">←</button>\
<button type="button" id="next" aria-label="Next layer">→</button></span>
<label><span class="word">Theme</span> <select id="theme"><option value="">system</option>\
<option value="light">light</option><option value="dark">dark</option></select></label>
</div></div>"""


def _text(routing: TokenRouting) -> str:
    spans = []
    for piece, experts in zip(routing.pieces, routing.layers[0].experts, strict=True):
        newline = " nl" if "\n" in piece and piece.isspace() else ""
        color = f"e{experts[0]}" if experts else "none"
        spans.append(f'<span class="t{newline} {color}">{_escape(piece)}</span>')
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
            f'{_escape(layer.name)}<svg aria-hidden="true">{"".join(parts)}</svg></button></li>'
        )
    return "".join(rows)


def _data(routing: TokenRouting, summaries: Sequence[LayerSummary]) -> str:
    """As JSON that holds no character which HTML or JavaScript could take for an end. Reals have four digits."""
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
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")


def _short(value: float) -> float:
    return float(f"{value:.4g}")
