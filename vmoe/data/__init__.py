"""Images in: FFCV files or class folders, behind one contract; and FFCV files written from folders.

Importing this package needs neither FFCV nor scikit-learn: what needs them says so when it is called.
"""

from .augment import Normalize
from .errors import DataError
from .loader import Batch, Batches, Loader, Loaders, Processes, Share
from .open import open_evaluation, open_loaders
from .sources import ArraySource
from .write import Written, verify_beton, write_beton

__all__ = [
    "ArraySource",
    "Batch",
    "Batches",
    "DataError",
    "Loader",
    "Loaders",
    "Normalize",
    "Processes",
    "Share",
    "Written",
    "open_evaluation",
    "open_loaders",
    "verify_beton",
    "write_beton",
]
