"""One HTML file that needs nothing else, in which no style and no script applies but its own."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from .visible import as_it_reads

THEMES = """<label><span class="word">Theme</span> <select id="theme"><option value="">system</option>\
<option value="light">light</option><option value="dark">dark</option></select></label>"""


@dataclass(frozen=True)
class Part:
    """A part of a page: what stands in its body, and the style and script that this needs.

    Script runs after `page.js`, in the order of the parts, each in a scope of its own.
    """

    body: str = ""
    style: str = ""
    script: str = ""

    @classmethod
    def from_assets(cls, package: str, name: str, body: str, *, style: str = "") -> Part:
        """With the package's files NAME.css and NAME.js. style: further rules."""
        return cls(body, asset(package, f"{name}.css") + style, asset(package, f"{name}.js"))


def document(title: str, parts: Sequence[Part]) -> str:
    """The page of these parts, which lie in its body one after another.

    Without script everything is as the parts' bodies say, and what has the attribute ``data-needs-script hidden`` is
    not shown; with script a part finds there `THEMES`, wherever it put it, at work.
    """
    style = "\n".join(["", asset(__package__, "page.css"), *dict.fromkeys(part.style for part in parts)])
    scripts = [asset(__package__, "page.js"), *dict.fromkeys(part.script for part in parts if part.script)]
    script = "\n".join(["", *scripts])
    policy = (
        f"default-src 'none'; img-src data:; style-src {_source(style)}; script-src {_source(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    body = "\n".join(part.body for part in parts)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{escape(title)}</title>
<style>{style}</style>
</head>
<body>
{body}
<script>{script}</script>
</body>
</html>
"""


def asset(package: str, name: str) -> str:
    """The text of a file that lies beside a package's modules."""
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")


def escape(text: str) -> str:
    """Text as HTML that reads as the text and is nothing else."""
    return html.escape(as_it_reads(text))


def facts_list(facts: Mapping[str, str]) -> str:
    """What a reader should know of what is shown, as a list."""
    rows = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in facts.items())
    return f'<dl class="facts">{rows}</dl>'


def embedded(element: str, content: object) -> str:
    """Data for a script, as JSON without a character that HTML or JavaScript could take for an end.

    element: the id under which a script finds it.
    """
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    text = text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")
    return f'<script type="application/json" id="{element}">{text}</script>'


def _source(content: str) -> str:
    """What allows an inline style or script of exactly this content (Content Security Policy, level 2)."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
