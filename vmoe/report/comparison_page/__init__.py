"""The page that shows runs side by side: tables, what their configs differ in, and their curves over each other.

It needs matplotlib, as `vmoe.report.plots` does.
"""

from .page import PAGE, save_comparison
from .scores import save_scores

__all__ = ["PAGE", "save_comparison", "save_scores"]
