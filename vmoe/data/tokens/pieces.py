"""Long texts in pieces whose tokens, one after another, are those of the whole.

GPT-2 first cuts a text by a pattern (`gpt2_vocabulary.PATTERN`) and then merges bytes within each part. No alternative
of the pattern goes on from a character that is not whitespace to one that is, and none looks back; those that look
ahead ask whether whitespace goes on. So where whitespace follows something else, there is always a cut, the parts
before it are the same if the text ends there, and the parts behind it are the same if the text begins there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

PIECE = 1 << 20
"""Bytes that a piece has at least, if the text does; it goes on to the next place where it may end."""

WHITESPACE = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""What the pattern's \\s matches, Unicode's White_Space, as a range of characters; `str.isspace` has four more."""

_ONE = rb"[\t-\r ]"
_TWO = rb"\xc2[\x85\xa0]"
_THREE = rb"\xe1\x9a\x80|\xe2\x80[\x80-\x8a\xa8\xa9\xaf]|\xe2\x81\x9f|\xe3\x80\x80"
_CUT = re.compile(rb"(?<!%b)(?<!%b)(?<!%b)(?:%b|%b|%b)" % (_ONE, _TWO, _THREE, _ONE, _TWO, _THREE))
_LONGEST = 3  # bytes of a whitespace character


def read_pieces(file: BinaryIO, size: int = PIECE) -> Iterator[bytes]:
    """The content of a file of UTF-8: pieces of about `size` bytes, each of which but the first begins with whitespace
    that follows something else. None for an empty file; a longer one where no such place comes."""
    buffer = bytearray()
    searched = size  # no cut between `size` and here
    while content := file.read(size):
        buffer += content
        while cut := _CUT.search(buffer, searched):
            yield bytes(buffer[: cut.start()])
            del buffer[: cut.start()]
            searched = size
        searched = max(size, len(buffer) - _LONGEST + 1)
    if buffer:
        yield bytes(buffer)
