"""Images with their routing: what is allowed, which patches are favourites, what a file keeps."""

from __future__ import annotations

import re

import numpy as np
import pytest
from maps_examples import image_routing, routing_of, weights_of

from vmoe.report.routing_maps import Favourites, MapLayer, favourites_of, keep, read_routing_maps, save_routing_maps

# --- favourites ------------------------------------------------------------------------------------------


def test_the_heaviest_patches_at_most_two_of_an_image():
    """By hand: two images of 2 × 2 patches of 16 pixels, one expert; the first image has the three heaviest, of which
    two count. The class token, heavier than all, is no patch."""
    weights = np.array([[9, 0.9, 0.8, 0.7, -1], [9, -1, -1, 0.1, 0]], dtype=np.float32)[:, :, None]
    given = image_routing(count=2, layers=(MapLayer("a", (1, 2, 2), weights),))
    (found,) = favourites_of(given)
    assert found.weights[0].tolist() == pytest.approx([0.9, 0.8, 0.1, 0])
    first, second = given.images
    expected = [first[:16, :16], first[:16, 16:], second[16:, :16], second[16:, 16:]]
    assert np.array_equal(found.patches[0], expected)


def test_as_many_as_asked_for_and_nan_where_there_are_fewer():
    weights = np.full((3, 4, 2), -1, dtype=np.float32)
    weights[:, :, 0] = 0.5
    weights[1, 2, 1] = 0.25
    (found,) = favourites_of(image_routing(layers=(MapLayer("a", (0, 2, 2), weights),)), most=4)
    assert found.patches.shape == (2, 4, 16, 16, 3)
    assert found.weights[0].tolist() == [0.5] * 4
    assert found.weights[1, 0] == 0.25
    assert np.isnan(found.weights[1, 1:]).all()
    assert not found.patches[1, 1:].any()


def test_of_equal_weights_not_the_first_corners_but_always_the_same():
    """Each pixel holds the number of its image and of its patch."""
    images = np.zeros((40, 32, 32, 3), dtype=np.uint8)
    images[..., 0] = np.arange(40)[:, None, None]
    images[..., 1] = np.kron([[0, 1], [2, 3]], np.ones((16, 16)))
    given = routing_of(images, MapLayer("a", (0, 2, 2), np.ones((40, 4, 1), dtype=np.float16)))
    (found,) = favourites_of(given)
    image_K, patch_K, _ = found.patches[0, :, 8, 8].T.tolist()
    assert set(image_K) - set(range(16))
    assert set(patch_K) == {0, 1, 2, 3}
    assert np.array_equal(favourites_of(given)[0].patches, found.patches)


def test_a_small_patch_lies_in_the_middle_of_its_surroundings():
    """Patches of 4 pixels, shown with 6 on each side; beyond the edge the outermost pixels go on."""
    images = np.zeros((1, 32, 32, 3), dtype=np.uint8)
    images[0, ..., 0], images[0, ..., 1] = np.mgrid[:32, :32]
    weights = np.full((1, 64, 1), -1, dtype=np.float32)
    weights[0, [0, 27], 0] = 2, 1  # rows 0 and 3, columns 0 and 3
    (found,) = favourites_of(routing_of(images, MapLayer("a", (0, 8, 8), weights)))
    corner, inner = found.patches[0, :2, :, :, :2]
    assert inner.shape == (16, 16, 2)
    assert inner[6, 6].tolist() == [12, 12]
    assert inner[15, 0].tolist() == [21, 6]
    assert corner[6, 6].tolist() == [0, 0]
    assert corner[0, 15].tolist() == [0, 9]


def test_a_few_images_are_kept_with_the_favourites_of_all():
    given = image_routing(count=9)
    few = keep(given, 3)
    assert few.names == ("0.png", "4.png", "8.png")
    assert few.labels == ("class 0", "class 4", "class 8")
    assert np.array_equal(few.images, given.images[[0, 4, 8]])
    for found, expected, whole in zip(few.favourites, favourites_of(given), given.layers, strict=True):
        assert np.array_equal(found.patches, expected.patches)
        assert np.nanmax(found.weights) == pytest.approx(whole.patch_weights.max())
    assert np.array_equal(few.layers[1].weights, given.layers[1].weights[[0, 4, 8]])
    assert keep(given, 100).names == given.names
    assert np.array_equal(keep(few, 1).favourites[0].patches, few.favourites[0].patches)


# --- files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_favourites", [False, True])
def test_a_file_gives_back_what_was_written(tmp_path, with_favourites):
    given = image_routing(layer_names=("a", "b", "c"), left_out=("d", "é <b>"))
    if with_favourites:
        given = keep(given, 3)
    read = read_routing_maps(save_routing_maps(given, tmp_path / "new" / "maps.npz"))
    assert (read.names, read.labels, read.left_out) == (given.names, given.labels, given.left_out)
    assert np.array_equal(read.images, given.images)
    assert len(read.favourites) == len(given.favourites)
    for found, layer in zip(read.layers, given.layers, strict=True):
        assert (found.name, found.grid) == (layer.name, layer.grid)
        assert np.array_equal(found.weights == -1, layer.weights == -1)
        np.testing.assert_allclose(found.weights, layer.weights, rtol=2**-11)  # float16's
    for found, favourites in zip(read.favourites, given.favourites, strict=True):
        assert np.array_equal(found.patches, favourites.patches)
        np.testing.assert_array_equal(found.weights, favourites.weights)


def test_weights_too_large_for_the_file_stay_finite(tmp_path):
    layer = MapLayer("a", (0, 2, 2), np.full((1, 4, 1), 1e6, dtype=np.float32))
    read = read_routing_maps(save_routing_maps(routing_of(np.zeros((1, 2, 2, 3)), layer), tmp_path / "maps.npz"))
    assert (read.layers[0].weights == 65504).all()


def test_a_file_without_layers(tmp_path):
    given = image_routing(layers=(), left_out=("blocks.0.mlp",))
    assert read_routing_maps(save_routing_maps(given, tmp_path / "maps.npz")).left_out == given.left_out


@pytest.mark.parametrize("lacking", ["images", "names", "0.grid", "1.weights", "favourites", "left_out"])
def test_a_file_that_lacks_something_says_what(tmp_path, lacking):
    path = save_routing_maps(image_routing(), tmp_path / "maps.npz")
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files if name != lacking}
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=rf"maps.npz lacks '{lacking}'; evaluate"):
        read_routing_maps(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("format", np.array(99)),
        ("images", np.zeros((3, 32, 32, 3))),
        ("images", np.zeros((2, 32, 32, 3), dtype=np.uint8)),
        ("0.grid", np.array([1, 2])),
        ("0.grid", np.array([0, 1, 2])),
        ("0.grid", np.array([1.0, 2.0, 2.0])),
        ("0.weights", np.full((3, 5, 3), np.nan)),
        ("names", np.array(1)),
        ("favourites", np.array("x")),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, value):
    path = save_routing_maps(image_routing(), tmp_path / "maps.npz")
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}
    np.savez(path, **{**arrays, name: value})
    with pytest.raises(ValueError, match=r"maps\.npz"):
        read_routing_maps(path)


# --- what is allowed -------------------------------------------------------------------------------------


def test_parts_of_a_layer_are_read_off_its_grid():
    layer = MapLayer("a", (1, 2, 3), weights_of(tokens=7))
    assert layer.num_experts == 3
    assert np.array_equal(layer.patch_weights, layer.weights[:, 1:])
    assert layer.patch_size(20, 30) == (10, 10)


@pytest.mark.parametrize(
    ("grid", "weights", "message"),
    [
        ((-1, 2, 2), np.ones((1, 3, 1)), "a: grid is (-1, 2, 2); allowed: three whole numbers"),
        ((0, 2.0, 2), np.ones((1, 4, 1)), "a: grid is (0, 2.0, 2); allowed: three whole numbers"),
        ((0, 2, 2), np.ones((1, 5, 1)), "a: weights is float64 of shape (1, 5, 1); allowed: reals of shape (images, 4"),
        ((0, 2, 2), np.ones((1, 4)), "of shape (1, 4); allowed"),
        ((0, 2, 2), np.ones((1, 4, 0)), "of shape (1, 4, 0); allowed"),
        ((0, 2, 2), np.ones((1, 4, 1), dtype=int), "a: weights is int64"),
        ((0, 1, 1), np.full((1, 1, 1), np.nan), "a: weights holds nan; allowed: 0 or more, and −1"),
        ((0, 1, 1), np.full((1, 1, 1), -0.5), "a: weights holds -0.5"),
    ],
)
def test_layers_that_do_not_fit_are_named(grid, weights, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        MapLayer("a", grid, weights)


TWO = (MapLayer("a", (0, 2, 2), weights_of(3, 4)), MapLayer("b", (0, 2, 2), weights_of(3, 4)))
FITTING = Favourites(np.zeros((3, 1, 16, 16, 3), dtype=np.uint8), np.zeros((3, 1)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((3, 8, 8, 3))}, "images is float64 of shape (3, 8, 8, 3)"),
        ({"images": np.zeros((0, 8, 8, 3), dtype=np.uint8)}, "images is uint8 of shape (0, 8, 8, 3)"),
        ({"names": ("x",)}, "names has 1 entries; allowed: 3"),
        ({"labels": ("x",)}, "labels has 1 entries; allowed: 3"),
        ({"layers": (MapLayer("a", (0, 2, 2), weights_of(2, 4)),)}, "a: weights are of 2 images; allowed: 3"),
        ({"layers": (MapLayer("a", (0, 1, 99), weights_of(3, 99)),)}, "a: grid is (0, 1, 99) on images of 32 × 32"),
        ({"layers": (TWO[0], TWO[0])}, "layers are ['a', 'a']; allowed: each name once"),
        ({"layers": TWO, "favourites": (FITTING,)}, "favourites has 1 entries; allowed: none, or 2"),
        (
            {"layers": (MapLayer("a", (0, 1, 1), weights_of(3, 1, 2)),), "favourites": (FITTING,)},
            "a: favourites are of 3 experts; allowed: 2",
        ),
    ],
)
def test_parts_that_do_not_fit_are_named(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        image_routing(**changes)


@pytest.mark.parametrize(
    ("patches", "weights", "message"),
    [
        (np.zeros((1, 1, 2, 2, 3)), np.zeros((1, 1)), "patches is float64"),
        (np.zeros((1, 1, 2, 2), dtype=np.uint8), np.zeros((1, 1)), "patches is uint8 of shape (1, 1, 2, 2)"),
        (np.zeros((1, 2, 2, 2, 3), dtype=np.uint8), np.zeros((1, 1)), "weights has shape (1, 1); allowed: (1, 2)"),
    ],
)
def test_favourites_that_do_not_fit_are_named(patches, weights, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Favourites(patches, weights)


def test_how_many_favourites_and_images_are_allowed():
    with pytest.raises(ValueError, match="most is 0; allowed: 1 or more"):
        favourites_of(image_routing(), most=0)
    with pytest.raises(ValueError, match="count is 0; allowed: 1 or more"):
        keep(image_routing(), 0)
