"""Pictures inside a page: PNG by the standard library alone (ISO/IEC 15948)."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

RGB = 2  # colour type
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def png(pixels: Pixels) -> bytes:
    """A file of the pixels (H, W, 3), without loss."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise ValueError(f"pixels is {pixels.dtype} of shape {pixels.shape}; allowed: uint8 (height, width, 3)")
    height, width, _ = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, RGB, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(_filtered(pixels).tobytes(), 6)), (b"IEND", b""))
    return SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def png_uri(pixels: Pixels) -> str:
    """The same as the address of an image: `data:image/png;base64,…`."""
    return f"data:image/png;base64,{base64.b64encode(png(pixels)).decode()}"


def _filtered(pixels: Pixels) -> Pixels:
    """(H, 1 + 3 W): each row behind the number of its filter, the one of five whose differences are smallest in sum."""
    height, width, _ = pixels.shape
    here = pixels.astype(np.int16)
    around = np.pad(here, ((1, 0), (1, 0), (0, 0)))
    left, up, corner = around[1:, :-1], around[:-1, 1:], around[:-1, :-1]
    guesses = (np.zeros_like(here), left, up, (left + up) // 2, _paeth(left, up, corner))
    rows_5HX = np.stack([(here - guess).astype(np.uint8).reshape(height, 3 * width) for guess in guesses])
    best_H = np.abs(rows_5HX.view(np.int8).astype(np.int32)).sum(2).argmin(0)
    return np.column_stack([best_H.astype(np.uint8), rows_5HX[best_H, np.arange(height)]])


def _paeth(left: NDArray[np.int16], up: NDArray[np.int16], corner: NDArray[np.int16]) -> NDArray[np.int16]:
    """Whichever of the three is nearest to left + up − corner, in this order."""
    to_left, to_up, to_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
    nearest_other = np.where(to_up <= to_corner, up, corner)
    return np.where((to_left <= to_up) & (to_left <= to_corner), left, nearest_other)
