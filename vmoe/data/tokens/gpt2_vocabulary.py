"""The vocabulary of GPT-2: which files hold it, what they must be, and how their merges become tokens."""

from __future__ import annotations

from .tokenizer import Description

VOCAB_SIZE = 50257
END_OF_TEXT_ID = 50256

# What tiktoken pins in tiktoken_ext/openai_public.py.
SHA256 = {
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}
# tiktoken's `r50k_pat_str`: the pattern of GPT-2's release, which says where the text is cut before bytes are merged.
PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""

DESCRIPTION: Description = {"kind": "gpt2", "sha256": SHA256["vocab.bpe"], "vocabulary": None}


def ranks(vocab_bpe: str) -> dict[bytes, int]:
    """Each token's bytes and id, from the text of vocab.bpe: 256 bytes, printable ones first, then the merges in order.

    The file writes a byte as a character: itself where it can be printed, else the next one from U+0100 on.
    """
    printable = [byte for byte in range(256) if chr(byte).isprintable() and chr(byte) != " "]
    others = [byte for byte in range(256) if byte not in printable]
    byte_of = {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(others)}
    tokens = [bytes([byte]) for byte in printable + others]
    for merge in vocab_bpe.split("\n")[1:-1]:  # the first line names the version
        tokens.append(bytes(byte_of[character] for character in merge.replace(" ", "")))
    return {token: rank for rank, token in enumerate(tokens)}
