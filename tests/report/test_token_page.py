"""The page of tokens coloured by expert: it holds what it was given and nothing that a piece of text could bring in."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from vmoe.report import TokenLayer, TokenRouting, save_token_page

PLAIN = ("The", " cat", "\n", " the", " cat", "\n\n")
HOSTILE = (
    *("</script><script>alert(1)</script>", "<!--", "-->", "]]>", "</style>", "</span></div><img onerror=alert(1)>"),
    *("\" onmouseover=\"alert(1)", "' autofocus onfocus='alert(1)", "&lt;b&gt;", "&#60;", "\\u003cscript>", "`${1}`"),
    *("\u2028\u2029", "\u202e\u2066", "\x00\x08\x1b\x7f\x85", "\r", "\ufeff", "\ud800", "a" * 500, "z" + "\u0300" * 9),
)  # fmt: skip
VOID = {"meta", "input"}


def routing(pieces=PLAIN, experts=None, num_experts=4, names=("h.0.mlp", "h.1.mlp"), **changes):
    """Every token has its own number of experts, from none to all, unless they are given."""
    if experts is None:
        experts = [tuple((i + j) % num_experts for j in range(i % (num_experts + 1))) for i in range(len(pieces))]
    weights = tuple(tuple(1 / (2 + rank) for rank in range(len(one))) for one in experts)
    parts = {
        "title": "A text",
        "facts": {"gate": "topk"},
        "pieces": tuple(pieces),
        "losses": (None, *(0.1 + i / 3 for i in range(len(pieces) - 1))),
        "layers": tuple(TokenLayer(name, tuple(experts), weights) for name in names),
        "num_experts": num_experts,
    }
    return TokenRouting(**{**parts, **changes})


class Page(HTMLParser):
    """Elements as (tag, attributes), and the text of the spans of tokens, of the data, of styles and scripts."""

    def __init__(self, content: str):
        super().__init__()
        self.elements, self.open, self.contents = [], [], []
        self.feed(content)
        self.close()
        assert self.open == [], "every element is closed"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.contents.append("")
        if tag not in VOID:
            self.open.append((tag, len(self.elements) - 1))

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.contents.append("")

    def handle_endtag(self, tag):
        opened, _ = self.open.pop()
        assert tag == opened

    def handle_data(self, text):
        if self.open:
            self.contents[self.open[-1][1]] += text

    def named(self, tag, **attributes):
        """Contents of the elements of this tag that have these attributes."""
        pairs = zip(self.elements, self.contents, strict=True)
        return [text for (t, found), text in pairs if t == tag and attributes.items() <= found.items()]

    @property
    def tokens(self):
        pairs = zip(self.elements, self.contents, strict=True)
        return [(e[1]["class"].split()[1:], text) for e, text in pairs if "t" in e[1].get("class", "").split()]

    @property
    def data(self):
        (content,) = self.named("script", type="application/json")
        return json.loads(content)


def page(*args, tmp_path, **changes):
    content = save_token_page(routing(*args, **changes), tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    return content, Page(content)


def test_every_token_stands_once_in_order(tmp_path):
    _, shown = page(tmp_path=tmp_path)
    assert [text for _, text in shown.tokens] == list(PLAIN)
    assert [classes for classes, _ in shown.tokens] == [
        *(["none"], ["e1"], ["nl", "e2"], ["e3"], ["e0"], ["nl", "none"]),
    ]  # token i has i experts (mod 5) from number i on (mod 4)


def test_the_data_are_those_that_were_given(tmp_path):
    given = routing()
    _, shown = page(tmp_path=tmp_path)
    data = shown.data
    assert data["pieces"] == list(given.pieces)
    assert data["losses"][0] is None
    assert data["losses"][1:] == pytest.approx(given.losses[1:], rel=1e-3)
    for found, layer in zip(data["layers"], given.layers, strict=True):
        assert found["name"] == layer.name
        assert [tuple(one) for one in found["experts"]] == list(layer.experts)
        for one, weights in zip(found["weights"], layer.weights, strict=True):
            assert one == pytest.approx(weights, rel=1e-3)


def test_how_often_each_expert_serves_which_token(tmp_path):
    """By hand: expert 0 serves both " cat", expert 1 one of them, expert 2 none; one token has no expert."""
    experts = [(), (0, 1), (1,), (1,), (0,), (1, 0)]
    _, shown = page(PLAIN, experts, 3, tmp_path=tmp_path)
    layer = shown.data["layers"][0]
    assert (layer["served"], layer["strongest"], layer["unserved"]) == ([3, 4, 0], [2, 3, 0], 1)
    assert layer["frequent"][0] == [[1, 2, 2], [5, 1, 1]]  # first such token, how many it serves, how many there are
    assert sorted(layer["frequent"][1]) == [[1, 1, 2], [2, 1, 1], [3, 1, 1], [5, 1, 1]]
    assert layer["frequent"][2] == []
    assert shown.named("span", **{"class": "share"}) == ["50.0 %", "66.7 %", "0.0 %", "16.7 %"]


def test_the_most_frequent_twelve_alone(tmp_path):
    pieces = [f" {i}" for i in range(20) for _ in range(i + 1)]
    _, shown = page(pieces, [(0,)] * len(pieces), 1, tmp_path=tmp_path)
    (frequent,) = shown.data["layers"][0]["frequent"]
    assert [count for _, count, _ in frequent] == list(range(20, 8, -1))


def structure(shown):
    """Elements and attributes, but for the values that say which expert and how much."""
    free = {"class", "content", "x", "width"}
    return [(tag, {k: v for k, v in found.items() if k not in free}) for tag, found in shown.elements]


def test_hostile_text_brings_in_no_element_and_no_attribute(tmp_path):
    experts = [(0,)] * len(HOSTILE)
    _, harmless = page(["x"] * len(HOSTILE), experts, tmp_path=tmp_path)
    hostile = "".join(HOSTILE[:14])
    content, shown = page(HOSTILE, experts, tmp_path=tmp_path, title=hostile, facts={hostile: hostile})
    assert structure(shown) == structure(harmless)
    assert shown.data["pieces"] == list(HOSTILE)
    (data,) = shown.named("script", type="application/json")
    assert not set("<>&") & set(data)
    assert data.isascii()
    assert [text for _, text in shown.tokens][:12] == list(HOSTILE[:12])
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]", content)
    assert shown.tokens[13][1] == "⟨U+202E⟩⟨U+2066⟩"


def test_hostile_layer_names(tmp_path):
    _, shown = page(tmp_path=tmp_path, names=("".join(HOSTILE[:12]),))
    _, harmless = page(tmp_path=tmp_path, names=("h.0.mlp",))
    assert structure(shown) == structure(harmless)


def test_the_page_needs_nothing_else_and_allows_only_its_own_style_and_script(tmp_path):
    content, shown = page(tmp_path=tmp_path)
    assert not re.search(r"https?:|src=|url\(|@import|href|//\w", content, re.IGNORECASE)
    (policy,) = (found["content"] for tag, found in shown.elements if "http-equiv" in found)
    (style,) = shown.named("style")
    script = next(text for text in shown.named("script") if '"use strict"' in text)
    for source in (style, script):
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    attributes = {name for _, found in shown.elements for name in found}
    assert "style" not in attributes, "the policy forbids them"
    assert not any(name.startswith("on") for name in attributes)


def test_what_the_script_looks_for_is_there(tmp_path):
    content, shown = page(tmp_path=tmp_path)
    ids = [found["id"] for _, found in shown.elements if "id" in found]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'byId\("([^"]+)"\)', content)) <= set(ids)


@pytest.mark.parametrize("num_experts", [1, 8, 9, 64])
def test_each_expert_has_a_color_of_its_own_and_many_have_numbers_too(tmp_path, num_experts):
    pieces = ["x"] * num_experts
    content, shown = page(pieces, [(expert,) for expert in range(num_experts)], num_experts, tmp_path=tmp_path)
    colors = re.findall(r"\.e\d+ \{ background-color: light-dark\((.*?)\);", content)
    assert len(colors) == len(set(colors)) == num_experts
    numbered = next(found for _, found in shown.elements if found.get("id") == "text").get("class") == "numbered"
    assert numbered == (num_experts > 8)


def luminance(color):
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_on_the_colors_of_eight_experts_is_readable(tmp_path):
    """Contrast as WCAG 2 defines it, at least 4.5 (level AA): black on the light form, white on the dark one."""
    content, _ = page(num_experts=8, tmp_path=tmp_path)
    pairs = re.findall(r"\.e\d+ \{ background-color: light-dark\((#\w{6}), (#\w{6})\);", content)
    assert len(pairs) == 8
    for light, dark in pairs:
        assert (luminance(light) + 0.05) / 0.05 >= 4.5
        assert 1.05 / (luminance(dark) + 0.05) >= 4.5


def test_tokens_without_experts(tmp_path):
    _, shown = page(PLAIN, [()] * len(PLAIN), tmp_path=tmp_path)
    assert all("none" in classes for classes, _ in shown.tokens)
    assert shown.data["layers"][0]["served"] == [0] * 4


ONE = TokenLayer("h.0.mlp", ((0,),), ((1.0,),))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pieces": (), "losses": ()}, "pieces is empty"),
        ({"layers": ()}, "layers is empty: a model without MoE layers routes no token"),
        ({"num_experts": 0}, "num_experts is 0; allowed: 1 or more"),
        ({"losses": (None, 1.0)}, "losses has 2 entries; allowed: 1"),
        ({"losses": (float("inf"),)}, "losses[0] is inf; allowed: a finite number or None"),
        ({"layers": (TokenLayer("a", (), ((1.0,),)),)}, "a: experts has 0 entries; allowed: 1"),
        ({"layers": (TokenLayer("a", ((0,),), ()),)}, "a: weights has 0 entries; allowed: 1"),
        ({"layers": (TokenLayer("a", ((0,),), ((),)),)}, "a: token 0 has 1 experts and 0 weights"),
        ({"layers": (TokenLayer("a", ((4,),), ((1.0,),)),)}, "a: token 0 has experts (4,); allowed: numbers below 4"),
        ({"layers": (TokenLayer("a", ((1, 1),), ((1.0, 1.0),)),)}, "a: token 0 has experts (1, 1)"),
        ({"layers": (TokenLayer("a", ((1, 2),), ((1.0, 2.0),)),)}, "the strongest first"),
        ({"layers": (TokenLayer("a", ((1,),), ((float("nan"),),)),)}, "allowed: finite numbers"),
    ],
)
def test_parts_that_do_not_fit_are_named(changes, message):
    parts = {"pieces": ("x",), "losses": (None,), "layers": (ONE,), "num_experts": 4}
    with pytest.raises(ValueError, match=re.escape(message)):
        TokenRouting(title="", facts={}, **{**parts, **changes})
