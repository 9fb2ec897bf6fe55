"""Images in: FFCV files or class folders, behind one contract; FFCV files written from folders; and text, as tokens.

Importing this package needs neither FFCV nor scikit-learn nor tiktoken: what needs them says so when it is called.
"""

from .augment import Normalize
from .augmentation import Augmentation, make_augmentation
from .errors import DataError
from .loader import Batch, Batches, Loader, Loaders, Processes, Share
from .open import open_evaluation, open_loaders
from .sources import ArraySource
from .tokens import (
    IGNORE,
    Tokenizer,
    TokenLoader,
    TokenLoaders,
    WrittenTokens,
    open_token_evaluation,
    open_token_loaders,
    open_tokenizer,
    verify_tokens,
    write_tokens,
)
from .write import Written, verify_beton, write_beton

__all__ = [
    "IGNORE",
    "ArraySource",
    "Augmentation",
    "Batch",
    "Batches",
    "DataError",
    "Loader",
    "Loaders",
    "Normalize",
    "Processes",
    "Share",
    "TokenLoader",
    "TokenLoaders",
    "Tokenizer",
    "Written",
    "WrittenTokens",
    "make_augmentation",
    "open_evaluation",
    "open_loaders",
    "open_token_evaluation",
    "open_token_loaders",
    "open_tokenizer",
    "verify_beton",
    "verify_tokens",
    "write_beton",
    "write_tokens",
]
