"""`routing_maps.npz`: images with their routing, and the favourites of each expert."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vmoe.report.counts import read_arrays, save_arrays

from .routing import Favourites, ImageRouting, MapLayer

ROUTING_MAPS = "routing_maps.npz"
FORMAT = 1
MOST_PIXELS = 2**27  # bytes of images; a run has 24 of them
LARGEST = float(np.finfo(np.float16).max)


def save_routing_maps(routing: ImageRouting, path: Path) -> Path:
    """Write the file, by a temporary name; images as they are, weights as float16. Returns the path."""
    arrays: dict[str, NDArray[np.generic]] = {
        "format": np.array(FORMAT),
        "images": routing.images,
        "names": np.array(routing.names, dtype=np.str_),
        "labels": np.array(routing.labels, dtype=np.str_),
        "layers": np.array([layer.name for layer in routing.layers], dtype=np.str_),
        "left_out": np.array(routing.left_out, dtype=np.str_),
        "favourites": np.array(len(routing.favourites)),
    }
    for number, layer in enumerate(routing.layers):
        arrays[f"{number}.grid"] = np.array(layer.grid)
        arrays[f"{number}.weights"] = np.minimum(layer.weights, LARGEST).astype(np.float16)
    for number, favourites in enumerate(routing.favourites):
        arrays[f"{number}.favourites"] = favourites.patches
        arrays[f"{number}.favourite_weights"] = favourites.weights.astype(np.float32)
    save_arrays(arrays, path)
    return path


def read_routing_maps(path: Path) -> ImageRouting:
    """Read the file. Raises `FileNotFoundError`, or `ValueError` where it is not what `save_routing_maps` writes."""
    arrays = read_arrays(path, FORMAT)
    pixels = arrays.get("images")
    if pixels is not None and pixels.nbytes > MOST_PIXELS:
        raise ValueError(f"{path} holds images of {arrays['images'].nbytes:,} bytes; allowed: {MOST_PIXELS:,}")
    try:
        layers = []
        for number, name in enumerate(arrays["layers"].tolist()):
            prefix, rows, columns = arrays[f"{number}.grid"].tolist()
            layers.append(MapLayer(str(name), (prefix, rows, columns), arrays[f"{number}.weights"]))
        favourites = [
            Favourites(arrays[f"{number}.favourites"], arrays[f"{number}.favourite_weights"])
            for number in range(int(arrays["favourites"]))
        ]
        names, labels, left_out = (tuple(map(str, arrays[key].tolist())) for key in ("names", "labels", "left_out"))
        return ImageRouting(arrays["images"], names, labels, tuple(layers), tuple(favourites), left_out)
    except KeyError as error:
        raise ValueError(f"{path} lacks {error}; evaluate the run again with vmoe eval") from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}); evaluate the run again with vmoe eval") from None
