"""Pictures inside pages: any reader of PNG gives back the pixels."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from vmoe.report.page.png import png, png_uri

X, Y = np.meshgrid(np.arange(37), np.arange(23))
PICTURES = {
    "noise": np.random.default_rng(0).integers(0, 256, (23, 37, 3)),
    "ramps": np.stack([X * 6, Y * 11, X + Y], axis=2),
    "stripes": np.stack([255 * (X % 2), 255 * (Y % 2), 255 * ((X + Y) % 2)], axis=2),
    "one pixel": np.array([[[1, 2, 255]]]),
    "one row": np.arange(30).reshape(1, 10, 3),
    "one column": np.arange(30).reshape(10, 1, 3),
}


@pytest.mark.parametrize("name", PICTURES)
def test_the_file_holds_the_pixels(name):
    pixels = PICTURES[name].astype(np.uint8)
    with Image.open(io.BytesIO(png(pixels))) as image:
        image.verify()
    with Image.open(io.BytesIO(png(pixels))) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
        assert np.array_equal(np.asarray(image), pixels)


def test_what_is_smooth_becomes_small():
    assert len(png(PICTURES["ramps"].astype(np.uint8))) < PICTURES["ramps"].size / 8


def test_the_address_holds_the_file():
    pixels = PICTURES["noise"].astype(np.uint8)
    kind, _, content = png_uri(pixels).partition(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(content) == png(pixels)


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((2, 2, 3)), np.zeros((2, 2), np.uint8), np.zeros((2, 2, 4), np.uint8), np.zeros((0, 2, 3), np.uint8)],
)
def test_what_is_no_picture_is_refused(pixels):
    with pytest.raises(ValueError, match=r"pixels is .* allowed: uint8 \(height, width, 3\)"):
        png(pixels)
