"""What people call the classes of a data set."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

WNID = re.compile(r"n\d{8}")  # WordNet's number of a noun, by which ImageNet's folders are called


def label_names(classes: Sequence[str]) -> tuple[str, ...]:
    """A name for each class, none twice where none is twice in classes: its folder's, or for ImageNet's folders the
    first of WordNet's words for it; all of them, and the folder, where that is another's too.
    """
    if not classes or not all(map(WNID.fullmatch, classes)):
        return tuple(classes)
    from timm.data import ImageNetInfo  # its models come with it, which takes a second

    words = ImageNetInfo("imagenet-22k")
    known = set(words.label_names())
    described = [words.label_name_to_description(name) if name in known else name for name in classes]
    names = [description.split(", ")[0] for description in described]
    for longer in (described, [f"{name} ({folder})" for name, folder in zip(described, classes, strict=True)]):
        times = Counter(names)
        names = [more if times[name] > 1 else name for name, more in zip(names, longer, strict=True)]
    return tuple(names)
