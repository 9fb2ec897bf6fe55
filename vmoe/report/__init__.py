"""Reads run folders; writes tables and, by `vmoe.report.plots`, which needs matplotlib, plots. No torch."""

from vmoe.report.runs import Figures, Layer, Routing, Run, parse_result, read_run
from vmoe.report.table import Table, comparison

__all__ = ["Figures", "Layer", "Routing", "Run", "Table", "comparison", "parse_result", "read_run"]
