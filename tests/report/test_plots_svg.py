"""Figures in pages: nothing that a page's policy forbids, the page's colours, no ids, and the same text each time."""

import re
import xml.etree.ElementTree as ET
from functools import cache

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from vmoe.report.page import Part, document
from vmoe.report.plots import co_activation, curves, expert_load, no_experts, routing_map, themed_svg

HOSTILE = '</svg><script>alert(1)</script>\x00\u202e$x_1$ &amp; "quoted\' style="fill:red"'


def lines():
    return curves({HOSTILE: ([1, 2], [1, 2]), "b": ([1], [2])}, title=HOSTILE, xlabel=HOSTILE, ylabel="y", markers=True)


def load():
    return expert_load([[0.75, 0.25], [0.5, 0.5]], ["blocks.1.mlp", HOSTILE], title="load", entropy=[0.8, 1.0])


def picture():
    return routing_map(np.zeros((4, 4, 3), np.uint8), np.ones((4, 2)), (0, 2, 2))


@cache
def svg_of(draw):
    return themed_svg(draw())


@pytest.fixture(params=[lines, load, picture])
def svg(request):
    return svg_of(request.param)


def test_nothing_needs_a_style_an_id_a_script_or_another_file(svg):
    root = ET.fromstring(svg)
    for element in root.iter():
        assert element.tag in {"svg", "g", "path", "text", "image"}
        assert not {"style", "id", "class"} & set(element.attrib) or element is root
        assert not any(name.startswith("on") for name in element.attrib)
        assert element.get("href", "data:image/png;base64,").startswith("data:image/png;base64,")
    assert "http" not in svg
    assert "url(" not in svg
    assert re.search(r"\d{4}-\d\d-\d\d", svg) is None, "no date"


def test_it_takes_the_width_of_its_place(svg):
    root = ET.fromstring(svg)
    assert root.get("width") == "100%"
    assert root.get("height") is None
    left, top, width, height = map(float, root.get("viewBox").split())
    assert (left, top) == (0, 0)
    assert min(width, height) > 0
    assert (root.get("role"), bool(root.get("aria-label"))) == ("img", True)


@pytest.mark.parametrize("draw", [lines, load])
def test_colours_are_the_pages_or_have_two_forms(draw):
    """But for the text and marks that lie on a picture's colours, which are the same in both themes."""
    allowed = r"var\(--(ink|soft|line|page)\)|light-dark\(#[0-9a-f]{6}, #[0-9a-f]{6}\)|none|#010101|#fefefe"
    for element in ET.fromstring(svg_of(draw)).iter():
        for paint in filter(None, (element.get("fill"), element.get("stroke"))):
            assert re.fullmatch(allowed, paint)


def test_text_is_text_in_the_pages_font():
    root = ET.fromstring(svg_of(load))
    found = {text.text: text for text in root.iter("text")}
    assert {"blocks.1.mlp", "load", "75.0", "expert", "0.800"} <= set(found)
    assert all(text.get("font-family") is None for text in found.values())
    assert found["expert"].get("fill") == "var(--ink)"
    assert (found["75.0"].get("fill"), found["25.0"].get("fill")) == ("#010101", "#fefefe"), "on cells, not themed"


def test_hostile_names_are_text():
    for svg in (svg_of(lines), svg_of(load)):
        assert "<script" not in svg
        assert "\x00" not in svg
        assert "\u202e" not in svg
        assert "&lt;script&gt;" in svg


def test_lines_have_a_form_for_each_theme():
    svg = svg_of(lines)
    assert 'stroke="light-dark(#0072b2, ' in svg
    assert "var(--line)" in svg


def test_the_same_figure_gives_the_same_text_and_is_left_as_it_was():
    assert themed_svg(load()) == svg_of(load)
    figure = load().figure
    figure.set_dpi(123)
    before = (figure.dpi, figure.canvas, figure.patch.get_visible(), figure.get_size_inches().tolist())
    themed_svg(figure.axes[0])
    assert (figure.dpi, figure.canvas, figure.patch.get_visible(), figure.get_size_inches().tolist()) == before


def test_what_lies_beyond_the_axes_is_cut_off():
    ax = curves({"a": ([0, 10], [0, 10])})
    ax.set_xlim(2, 4)
    (line,) = (path for path in ET.fromstring(themed_svg(ax)).iter("path") if path.get("stroke-width") == "1.7"
               and path.get("clip-path"))  # fmt: skip
    assert re.fullmatch(r"polygon\((-?[\d.]+px -?[\d.]+px(, )?){4}\) view-box", line.get("clip-path"))


def test_black_of_other_peoples_axes_is_ink():
    """matplotlib's own default leaves black out where it writes SVG."""
    ax = no_experts().figure.add_subplot()
    ax.fill([0, 1, 1], [0, 0, 1], color="black", linewidth=0)
    ax.plot([0, 1], [0, 1], color="#000000")
    root = ET.fromstring(themed_svg(ax))
    paints = {path.get(name) for path in root.iter("path") for name in ("fill", "stroke")}
    assert "var(--ink)" in paints
    assert "#000000" not in paints
    assert all(path.get("fill") for path in root.iter("path"))


def test_thousands_of_cells_are_one_small_picture():
    values = np.random.default_rng(0).random((64, 64))
    svg = themed_svg(co_activation(values + values.T))
    assert len(svg) < 150_000
    assert svg.count("<image") == 2, "the cells and the bar"


def test_a_page_holds_a_figure_twice():
    svg = svg_of(load)
    page = document("page", [Part(svg), Part(svg)])
    assert page.count(svg) == 2
    assert "style=" not in svg.replace('style="fill:red"', "").replace("style=&quot;", "")
