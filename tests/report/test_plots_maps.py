"""Pictures of images and their routing: which pixels get which colour, and what the legend names."""

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from vmoe.report.page.palette import EIGHT
from vmoe.report.plots import favourite_patches, routing_map, routing_maps
from vmoe.report.plots.maps import OPACITY
from vmoe.report.plots.tints import tints_of

GRID = (1, 2, 2)  # a class token, then 2 by 2 patches
IMAGE = np.full((4, 4, 3), 100, np.uint8)
# Class token, then the patches: of expert 0, of expert 1 (the larger weight), of none, of expert 1 with weight 0.
WEIGHTS = np.array([[9, 9], [0.5, -1], [0.2, 0.8], [-1, -1], [-1, 0.0]])


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def pixels(ax):
    return ax.images[0].get_array()


def tint(expert):
    """Of a grey of 100."""
    hexadecimal = EIGHT[expert][0]
    color = np.array([int(hexadecimal[i : i + 2], 16) for i in (1, 3, 5)])
    return (100 * (1 - OPACITY) + color * OPACITY).round().tolist()


def test_each_patch_has_the_colour_of_its_strongest_expert():
    """The image, a gap of 1, the tinted image: 4 + 1 + 4 columns."""
    ax = routing_map(IMAGE, WEIGHTS, GRID, title="digits")
    picture = pixels(ax)
    assert picture.shape == (4, 9, 4)
    assert (picture[:, :4, :3] == 100).all()
    assert (picture[:, 4, 3] == 0).all()
    assert (picture[:2, 5:7, :3] == tint(0)).all()
    assert (picture[:2, 7:, :3] == tint(1)).all()
    assert (picture[2:, 7:, :3] == tint(1)).all()
    assert len(set(picture[3, 5, :3].tolist())) == 1, "grey"
    assert legend(ax) == ["0", "1", "none"]
    assert ax.get_title() == "digits"


def test_images_in_rows_with_their_routing_below():
    """3 images in rows of 2: two rows of images and two of maps of 4 pixels each, 3 gaps of 1."""
    ax = routing_maps(np.stack([IMAGE] * 3), np.stack([WEIGHTS] * 3), GRID, columns=2)
    picture = pixels(ax)
    assert picture.shape == (4 * 4 + 3, 2 * 4 + 1, 4)
    assert (picture[10:14, :4, :3] == 100).all()
    assert (picture[15:17, :2, :3] == tint(0)).all()
    assert (picture[10:, 5:, 3] == 0).all(), "there is no fourth image"


def test_patches_that_do_not_divide_the_image():
    picture = pixels(routing_map(np.zeros((5, 5, 3), np.uint8), WEIGHTS, GRID))
    assert picture.shape == (5, 11, 4)
    assert (picture[..., 3] == 255).sum() == 2 * 25


def test_legends_name_the_experts_that_are_strongest_somewhere_and_of_many_the_most_frequent():
    weights = np.full((2, 3 + 36, 64), -1.0)
    weights[0, np.arange(3, 39), np.arange(36)] = 1
    weights[1, 3:, 5] = 1
    names = legend(routing_maps(np.zeros((2, 6, 6, 3), np.uint8), weights, (3, 6, 6)))
    assert len(names) == 24
    assert names[:6] == ["0", "1", "2", "3", "4", "5"]


def test_tints_are_those_of_the_pages():
    for rgb, (light, _) in zip(tints_of(8), EIGHT, strict=True):
        assert "#" + "".join(f"{round(255 * part):02x}" for part in rgb) == light
    many = tints_of(64)
    assert many.shape == (64, 3)
    assert (many.min(), many.max()) >= (0, 0)
    assert many.max() <= 1
    # oklch(1 0 0) is white, oklch(0.5 0 0) a grey: 0.5³ = 0.125 of the light, which sRGB writes as 0.389.
    from vmoe.report.plots.tints import _rgb

    assert _rgb("oklch(1 0 0)") == pytest.approx([1, 1, 1], abs=1e-4)
    assert _rgb("oklch(0.5 0 0)") == pytest.approx([1.055 * 0.125 ** (1 / 2.4) - 0.055] * 3, abs=1e-4)


def test_favourites_in_rows_and_holes_where_an_expert_has_fewer():
    """2 experts, 3 patches of 2 by 2: rows of 2 + 1 + 2 pixels, columns of 2 + 1 + 2 + 1 + 2."""
    patches = np.arange(2 * 3 * 2 * 2 * 3, dtype=np.uint8).reshape(2, 3, 2, 2, 3)
    ax = favourite_patches(patches, weights_EK=np.array([[0.9, 0.8, 0.7], [0.5, np.nan, np.nan]]))
    picture = pixels(ax)
    assert picture.shape == (5, 8, 4)
    assert (picture[:2, 6:, :3] == patches[0, 2]).all()
    assert (picture[3:, :2, :3] == patches[1, 0]).all()
    assert (picture[3:, 2:, 3] == 0).all()
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0", "1"]
    assert pixels(favourite_patches(patches))[..., 3].sum() == 255 * 6 * 4
    nothing = favourite_patches(patches, weights_EK=np.full((2, 3), np.nan))
    assert not pixels(nothing).any()


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: routing_map(IMAGE, WEIGHTS[1:], GRID), r"allowed: \(1, 1 \+ 2 · 2, experts\)"),
        (lambda: routing_map(IMAGE[..., 0], WEIGHTS, GRID), r"images have shape \(1, 4, 4\)"),
        (lambda: routing_maps(IMAGE[None][:0], WEIGHTS[None], GRID), r"images have shape \(0, 4, 4, 3\)"),
        (lambda: routing_maps(IMAGE[None], WEIGHTS[None], GRID, columns=0), "columns is 0; allowed: at least 1"),
        (lambda: favourite_patches(IMAGE), r"patches_EKhw3 has shape \(4, 4, 3\)"),
        (lambda: favourite_patches(IMAGE[None, None], weights_EK=np.ones(2)), r"allowed: \(1, 1\)"),
    ],
)
def test_shapes_that_do_not_fit(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


def test_it_draws_where_it_is_told():
    ax = routing_map(IMAGE, WEIGHTS, GRID).figure.add_subplot()
    assert routing_map(IMAGE, WEIGHTS, GRID, ax) is ax
    assert routing_maps(IMAGE[None], WEIGHTS[None], GRID, ax) is ax
    assert favourite_patches(IMAGE[None, None], ax) is ax
