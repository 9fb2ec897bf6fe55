"""Figures as inline SVG for pages: in the page's colours and font, light and dark; no styles, ids or references."""

from __future__ import annotations

import io
import re
import warnings
import xml.etree.ElementTree as ET

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from .canvas import INK, LINE, NARROW, PAPER, SERIES, SOFT

SVG, XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
THEMED = {
    **{light: f"light-dark({light}, {dark})" for light, dark in SERIES},
    **{"#000000": "var(--ink)", INK: "var(--ink)", SOFT: "var(--soft)", LINE: "var(--line)", PAPER: "var(--page)"},
}
PAINTS = ("fill", "stroke")
LEFT_OUT = {"defs", "metadata", "clipPath", "style", "title"}
FILLED, WORDED = {"path", "rect", "text"}, {"text", "tspan"}
DIGITS = {"d": 2, "x": 2, "y": 2, "transform": 5}  # that can be seen
NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))
OPTIONS = {"svg.fonttype": "none", "svg.hashsalt": "", "svg.image_inline": True, "image.composite_image": False}


def themed_svg(ax: Axes) -> str:
    """The figure of these axes as an ``<svg>`` element for a page of `vmoe.report.page.document`.

    It is as wide as its place. Its paper is the page; its text is text, in the page's font; ink, lines and the series'
    colours follow the page's theme, heat maps and pictures are the same in both. It has no ids, so that a page can hold
    it twice, and no style attributes, which a page's policy forbids. The same figure gives the same text.
    """
    root = ET.fromstring(_drawn(ax.figure.figure))
    definitions = {one.get("id", ""): one for one in root.iter() if one.get("id")}
    _, _, width, height = map(float, root.get("viewBox", "").split())
    wide = max(width, 72 * NARROW)  # room beside narrow figures, so that letters are as large as in others
    view = f"0 0 {wide:g} {height:g}"
    drawing = ET.Element("svg", {"class": "plot", "viewBox": view, "width": "100%", "role": "img"})
    drawing.set("stroke-linejoin", "round")
    label = ax.get_title() or " over ".join(filter(None, [ax.get_ylabel(), ax.get_xlabel()])) or "figure"
    drawing.set("aria-label", " ".join(label.split()))
    for child in root:
        _copy(child, drawing, definitions)
    return ET.tostring(drawing, encoding="unicode")


def _drawn(figure: Figure) -> str:
    """As matplotlib writes it, without paper; as `savefig`, which draws twice, but once."""
    file, canvas, dpi, opaque = io.StringIO(), figure.canvas, figure.dpi, figure.patch.get_visible()
    figure.patch.set_visible(False)
    try:
        with matplotlib.rc_context(OPTIONS), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the page's fonts draw the text
            FigureCanvasSVG(figure).print_svg(file, metadata=NO_METADATA)
    finally:
        figure.patch.set_visible(opaque)
        figure.set_canvas(canvas)
        figure.set_dpi(dpi)
    return file.getvalue()


def _copy(element: ET.Element, parent: ET.Element, definitions: dict[str, ET.Element]) -> None:
    """What is visible of an element, below parent."""
    tag = element.tag.removeprefix(SVG)
    if tag in LEFT_OUT:
        return
    attributes = _attributes(element)
    if tag == "use":
        target = definitions[attributes.pop("href").removeprefix("#")]
        place = f"translate({attributes.pop('x', '0')} {attributes.pop('y', '0')})"
        attributes = {**_attributes(target), **attributes, "transform": place}
        tag = "path"
    if tag in FILLED:
        attributes.setdefault("fill", "var(--ink)")  # black, which matplotlib leaves out
    clip = attributes.pop("clip-path", None)
    if tag == "path" and _is_invisible(attributes):
        return
    if clip:
        attributes["clip-path"] = _shape(definitions[clip[5:-1]])
    if tag == "a" or (tag == "g" and not attributes):
        for child in element:
            _copy(child, parent, definitions)
        return
    copy = ET.SubElement(parent, tag, attributes)
    copy.text = element.text if tag in WORDED else None
    for child in element:
        _copy(child, copy, definitions)
    if tag == "g" and not len(copy):
        parent.remove(copy)


def _attributes(element: ET.Element) -> dict[str, str]:
    """Without ids, namespaces and styles, in whose place stand presentation attributes in the page's colours."""
    found: dict[str, str] = {}
    for name, value in element.attrib.items():
        name = name.removeprefix(XLINK)
        if name == "style":
            declarations = (one.partition(":") for one in value.split(";") if one.strip())
            found |= {key.strip(): setting.strip() for key, _, setting in declarations}
        elif name != "id":
            found[name] = value
    found.pop("font-family", None)
    if found.get("stroke-dashoffset") == "0":
        del found["stroke-dashoffset"]
    for name in PAINTS:
        if name in found:
            found[name] = "none" if found[name].startswith("url(") else THEMED.get(found[name], found[name])
    if "href" in found:
        found["href"] = "".join(found["href"].split())
    for name, digits in DIGITS.items():
        if name in found:
            found[name] = _short(found[name], digits)
    if found.get("transform", "").startswith("rotate(-0 "):
        del found["transform"]
    return found


def _is_invisible(attributes: dict[str, str]) -> bool:
    if not attributes.get("d"):
        return True
    drawn = [attributes.get(name, "none") for name in PAINTS]
    return drawn == ["none", "none"] or attributes.get("opacity") == "0"


def _shape(clip: ET.Element) -> str:
    """A clip path as CSS has it, which needs no id."""
    (inner,) = clip
    if inner.tag == f"{SVG}path":
        return f'path("{_short(inner.get("d", ""), 2)}") view-box'
    x, y, width, height = (float(inner.get(name, "0")) for name in ("x", "y", "width", "height"))
    right, bottom = x + width, y + height
    corners = [(x, y), (right, y), (right, bottom), (x, bottom)]
    return f"polygon({', '.join(f'{a:.2f}px {b:.2f}px' for a, b in corners)}) view-box"


def _short(numbers: str, digits: int) -> str:
    """In one line, with so many digits after the point."""
    line = " ".join(numbers.split())
    return re.sub(r"-?\d+\.\d+", lambda match: f"{float(match[0]):.{digits}f}".rstrip("0").rstrip("."), line)
