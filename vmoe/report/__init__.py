"""Reads run folders; writes tables and, by `vmoe.report.plots`, which needs matplotlib, plots. No torch."""

from vmoe.report.comparison import comparison
from vmoe.report.runs import Figures, Layer, Routing, Run, parse_result, read_run
from vmoe.report.sweep import Sweep, parse_sweep, sweep_table
from vmoe.report.table import Table

__all__ = [
    "Figures",
    "Layer",
    "Routing",
    "Run",
    "Sweep",
    "Table",
    "comparison",
    "parse_result",
    "parse_sweep",
    "read_run",
    "sweep_table",
]
