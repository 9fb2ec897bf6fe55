"""The page of images by expert: it holds what it was given, and nothing that a name or label could bring in."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import zlib

import numpy as np
import pytest
from html_page import HtmlPage
from maps_examples import image_routing, routing_of
from PIL import Image

from vmoe.report.routing_maps import MapLayer, keep, maps_part, save_image_page, save_map_pngs
from vmoe.report.routing_maps.data import pack

HOSTILE = (
    *("</script><script>alert(1)</script>", "<!--", "]]>", "</style>", "</span></div><img onerror=alert(1)>", "\u2028"),
    *("\" onmouseover=\"alert(1)", "' autofocus onfocus='alert(1)", "&lt;b&gt;", "\u202e", "\x00\x1b", "\ud800"),
)  # fmt: skip


def page(routing, tmp_path, **facts):
    path = save_image_page(routing, "Images", facts or {"gate": "topk"}, tmp_path / "new" / "page.html")
    content = path.read_text(encoding="utf-8")
    return content, HtmlPage(content)


def data_of(shown):
    ((_, content),) = shown.named("script", id="maps-data")
    return json.loads(content)


def pixels_of(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def painted(shown, columns, rows):
    """For each picture the expert of each patch as its overlay's paths have it, −1 where there is none."""
    pictures = []
    for tag, found in shown.elements:
        if tag == "svg" and found.get("class") == "overlay":
            pictures.append(np.full((rows, columns), -1))
        if tag == "path":
            for x, y, length in re.findall(r"M(\d+) (\d+)h(\d+)v1h-\3z", found["d"]):
                patches = pictures[-1][int(y), int(x) : int(x) + int(length)]
                assert (patches == -1).all(), "no patch is painted twice"
                patches[:] = int(found["class"].removeprefix("f"))
    return np.stack(pictures)


def test_pictures_and_their_patches_as_they_were_given(tmp_path):
    given = image_routing(count=4, grid=(1, 4, 2), experts=5)
    _, shown = page(given, tmp_path)
    images = [found for found, _ in shown.named("img")]
    assert [found["alt"] for found in images] == list(given.names)
    assert np.array_equal([pixels_of(found["src"]) for found in images], given.images)
    assert [text for _, text in shown.named("b")] == list(given.labels)
    weights = given.layers[0].patch_weights
    expected = np.where(weights.max(2) < 0, -1, weights.argmax(2)).reshape(4, 4, 2)
    assert (expected == -1).any()
    assert np.array_equal(painted(shown, 2, 4), expected)


def test_shares_of_experts(tmp_path):
    """By hand: 4 patches; expert 0 is active in 3 and the strongest in 1, expert 1 in 2 and in 2, expert 2 in none; one
    patch has none. The class token, of expert 2, is no patch, and stands below the picture."""
    weights = np.array([[-1, -1, 9], [3, -1, -1], [1, 2, -1], [2, 2.5, -1], [-1, -1, -1]], dtype=np.float32)[None]
    _, shown = page(routing_of(np.zeros((1, 4, 4, 3)), MapLayer("a", (1, 2, 2), weights)), tmp_path)
    assert [text for _, text in shown.named("span", **{"class": "share"})] == ["25.0 %", "50.0 %", "0.0 %", "25.0 %"]
    layer = data_of(shown)["layers"][0]
    assert (layer["served"], layer["strongest"], layer["unserved"]) == ([0.75, 0.5, 0], [0.25, 0.5, 0], 0.25)
    chips = [text for found, text in shown.named("span") if found.get("class") == "chip e2"]
    assert chips == ["2", "2"]  # of the legend and of the class token


@pytest.mark.parametrize("steps", [65535, 255])
def test_packed_weights_are_those_given_to_half_a_step(steps):
    weights = image_routing(grid=(1, 3, 3), experts=4).layers[0].weights
    packed = np.frombuffer(zlib.decompress(base64.b64decode(pack(weights, steps))), "<u2" if steps > 255 else "u1")
    packed = packed.reshape(weights.shape).astype(float)
    assert np.array_equal(packed == 0, weights == -1)
    again = (packed - 1) / (steps - 1) * weights.max()
    active = weights >= 0
    assert np.abs(again - weights)[active].max() <= 0.501 * weights.max() / (steps - 1)


def test_layers_where_nothing_is_active_or_weighs_anything(tmp_path):
    layers = [MapLayer(name, (0, 2, 2), np.full((1, 4, 2), value, np.float32)) for name, value in [("a", -1), ("b", 0)]]
    _, shown = page(routing_of(np.zeros((1, 4, 4, 3)), *layers), tmp_path)
    assert [layer["unserved"] for layer in data_of(shown)["layers"]] == [1, 0]
    assert shown.named("path") == []


def test_favourites_and_their_frames(tmp_path):
    """Patches of 4 pixels in cuts of 16: the frame is 6 pixels from every edge."""
    given = keep(image_routing(count=4, grid=(0, 8, 8), experts=3), 2)
    _, shown = page(given, tmp_path)
    pictures = [pixels_of(found["href"]) for found, _ in shown.named("image")]
    drawn = given.favourites[0].patches[given.favourites[0].weights >= 0]
    assert np.array_equal(pictures, drawn)
    frames = {
        tuple(found[key] for key in ("x", "y", "width", "height"))
        for found, _ in shown.named("rect", **{"class": "frame"})
    }
    assert frames == {("6", "6", "4", "4")}
    first, second = data_of(shown)["layers"]
    assert first["favourites"] == []
    assert [len(one) for one in second["favourites"]] == (given.favourites[1].weights >= 0).sum(1).tolist()
    assert np.array_equal(pixels_of(second["favourites"][1][0][0]), given.favourites[1].patches[1, 0])


def structure(shown):
    """Elements and attributes, but for the values that say which expert, how much and what it is called."""
    free = {"class", "content", "width", "alt", "title", "aria-label", "d", "src"}
    return [(tag, {k: v for k, v in found.items() if k not in free}) for tag, found in shown.elements]


def test_hostile_names_bring_in_no_element_and_no_attribute(tmp_path):
    count = len(HOSTILE)
    _, harmless = page(image_routing(count=count, left_out=("x",)), tmp_path)
    hostile = image_routing(
        count=count, names=HOSTILE, labels=HOSTILE, layer_names=("".join(HOSTILE), "b"), left_out=HOSTILE
    )
    content, shown = page(hostile, tmp_path, gate="".join(HOSTILE))
    assert structure(shown) == structure(harmless)
    ((_, data),) = shown.named("script", id="maps-data")
    assert not set("<>&") & set(data)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]", content)


def test_the_page_needs_nothing_else_and_allows_only_its_own_style_and_script(tmp_path):
    content, shown = page(keep(image_routing(), 3), tmp_path)
    ours = re.sub(r"data:image/png;base64,[\w+/=]+", "", content).replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|url\(|@import", ours)
    ((policy, _),) = shown.named("meta", **{"http-equiv": "Content-Security-Policy"})
    ((_, style),) = shown.named("style")
    script = next(text for _, text in shown.named("script") if '"use strict"' in text)
    for source in (style, script):
        assert base64.b64encode(hashlib.sha256(source.encode()).digest()).decode() in policy["content"]
    attributes = {name for _, found in shown.elements for name in found}
    assert "style" not in attributes, "the policy forbids them"
    assert not any(name.startswith("on") for name in attributes)


def test_what_the_script_looks_for_is_there_once(tmp_path):
    content, shown = page(keep(image_routing(), 3), tmp_path)
    ids = [found["id"] for _, found in shown.elements if "id" in found]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'byId\("([^"]+)"\)', content)) <= set(ids)


@pytest.mark.parametrize(
    ("experts", "columns", "numbered"), [(8, 2, False), (9, 2, True), (64, 16, True), (9, 17, False)]
)
def test_many_experts_have_numbers_where_there_is_room(tmp_path, experts, columns, numbered):
    grid = (0, 1, columns)
    weights = np.full((1, columns, experts), 0.5, dtype=np.float32)
    _, shown = page(routing_of(np.zeros((1, 17, 17, 3)), MapLayer("a", grid, weights)), tmp_path)
    assert [text for _, text in shown.named("text")] == ["0"] * columns * numbered
    ((box, _),) = shown.named("input", id="maps-numbers")
    assert ("checked" in box) == numbered


def test_without_a_known_order_it_says_so():
    part = maps_part(image_routing(layers=(), left_out=("blocks.0.mlp",)))
    assert "no known order" in part.body
    assert "blocks.0.mlp" in part.body
    assert not part.script


def test_pictures_for_papers_one_for_each_layer_and_its_favourites(tmp_path):
    pytest.importorskip("matplotlib")
    given = image_routing(layer_names=("blocks.0/mlp",))
    (alone,) = save_map_pngs(given, tmp_path / "alone", "last-")
    assert alone == tmp_path / "alone" / "last-blocks.0_mlp-maps.png"
    paths = save_map_pngs(keep(given, 2), tmp_path)
    assert [path.name for path in paths] == ["blocks.0_mlp-maps.png", "blocks.0_mlp-favourites.png"]
    assert all(Image.open(path).format == "PNG" for path in (alone, *paths))
