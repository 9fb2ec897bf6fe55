"""ImageNet's reassessed labels: every right class of each validation image (Beyer et al. 2020, arXiv 2006.07159).

The published real.json is a list of lists of class numbers, in the order of the images' names, ILSVRC2012_val_00000001
to 00050000; an image without labels is not judged.
"""

from __future__ import annotations

import json
import pkgutil
import re
from collections.abc import Sequence
from pathlib import Path

from vmoe.untrusted import read_file

from .errors import DataError, missing

LARGEST = 2**28  # bytes; the published file has 0.4 million
COPY = "timm"  # in place of a path: the copy that comes with timm

Labels = tuple[tuple[int, ...], ...]

_NAME = re.compile(r"ILSVRC2012_val_(\d{8})(?:\.\w+)?")


def read_real_labels(source: str, classes: int) -> Labels:
    """The labels of every image, in the order of their names. source: a file, or ``timm``.

    Raises `DataError` for a file that is missing or holds anything but lists of numbers of so many classes.
    """
    if source == COPY:
        content = pkgutil.get_data("timm.data", "_info/imagenet_real_labels.json") or b""
    elif not Path(source).is_file():
        raise missing(
            "--real", Path(source), f"the real.json of the reassessed labels, or {COPY}, for the copy of timm"
        )
    else:
        content = read_file(source, LARGEST)
    allowed = f"allowed: a JSON list of lists of class numbers, 0 to {classes - 1}, one list an image"
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"--real is '{source}', which is no JSON ({error}); {allowed}") from None
    if not isinstance(found, list):
        raise DataError(f"--real is '{source}', which holds no list; {allowed}")
    for number, labels in enumerate(found):
        if not isinstance(labels, list) or any(type(label) is not int or not 0 <= label < classes for label in labels):
            raise DataError(f"--real is '{source}', where image {number + 1} has {str(labels)[:60]}; {allowed}")
    return tuple(tuple(labels) for labels in found)


def real_labels_by_image(real: Labels, names: Sequence[str] | None, where: str) -> Labels:
    """The labels of images by the names of their files. where: what the images lie in, for errors.

    Raises `DataError` where names are not known, or are not those of ImageNet's validation images, each once.
    """
    if names is None:
        raise DataError(
            f"--real goes by the names of files, and {where} does not hold them; allowed: an image folder, or a .beton"
            " file written from one by this version of `vmoe write`, with its .files.json beside it"
        )
    numbers = []
    for name in names:
        match = _NAME.fullmatch(name.rpartition("/")[2])
        if match is None or not 1 <= int(match[1]) <= len(real):
            raise DataError(
                f"--real goes by the names of files, and {where} holds '{name}'; allowed: ILSVRC2012_val_00000001 to"
                f" {len(real):08}"
            )
        numbers.append(int(match[1]))
    if len(set(numbers)) < len(numbers):
        raise DataError(f"--real goes by the names of files, and {where} holds one of them twice; allowed: each once")
    return tuple(real[number - 1] for number in numbers)
