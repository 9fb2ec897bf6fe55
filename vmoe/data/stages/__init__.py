"""How fast each stage of the data path is, on the user's own data: what `vmoe bench-data` measures and says of it.

Importing this package does not need ffcv; the stages of its loader are imported with the loader itself.
"""

from .advice import MODEL, Judged, Measured, judge
from .measure import measure_images, measure_tokens
from .page_cache import resident_share
from .rate import Rate, time_work

__all__ = [
    "MODEL",
    "Judged",
    "Measured",
    "Rate",
    "judge",
    "measure_images",
    "measure_tokens",
    "resident_share",
    "time_work",
]
