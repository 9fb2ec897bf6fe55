"""Reads run folders; writes tables, and plots (`vmoe.report.plots`, which alone needs matplotlib). Needs no torch."""

from vmoe.report.runs import Figures, Layer, Routing, Run, parse_result, read_run
from vmoe.report.table import Table, comparison

__all__ = ["Figures", "Layer", "Routing", "Run", "Table", "comparison", "parse_result", "read_run"]
