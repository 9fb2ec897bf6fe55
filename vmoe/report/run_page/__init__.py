"""The page of a run. It needs matplotlib."""

from .page import save_run_page

__all__ = ["save_run_page"]
