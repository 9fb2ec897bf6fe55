"""Text in: token files, what writes them and what reads them.

Importing this package needs neither tiktoken nor datasets: what needs them says so when it is called.
"""

from .loader import IGNORE, TokenLoader, TokenLoaders
from .open import open_token_evaluation, open_token_loaders
from .sidecar import TokenSidecar
from .tokenizer import BytesTokenizer, Description, Tokenizer, open_tokenizer
from .write import WrittenTokens, verify_tokens, write_tokens

__all__ = [
    "IGNORE",
    "BytesTokenizer",
    "Description",
    "TokenLoader",
    "TokenLoaders",
    "TokenSidecar",
    "Tokenizer",
    "WrittenTokens",
    "open_token_evaluation",
    "open_token_loaders",
    "open_tokenizer",
    "verify_tokens",
    "write_tokens",
]
