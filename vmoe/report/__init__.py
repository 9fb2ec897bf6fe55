"""Reads run folders; writes tables, pages and, by `vmoe.report.plots`, which needs matplotlib, plots.

No torch.
"""

from vmoe.report.comparison import comparison
from vmoe.report.counts import Counts, LayerCounts, read_counts
from vmoe.report.metrics import Metrics, Moment, Served, read_metrics
from vmoe.report.runs import Figures, Layer, Routing, Run, parse_result, read_run
from vmoe.report.sweep import Sweep, parse_sweep, sweep_table
from vmoe.report.table import Table
from vmoe.report.token_page import TokenLayer, TokenRouting, save_token_page

__all__ = [
    "Counts",
    "Figures",
    "Layer",
    "LayerCounts",
    "Metrics",
    "Moment",
    "Routing",
    "Run",
    "Served",
    "Sweep",
    "Table",
    "TokenLayer",
    "TokenRouting",
    "comparison",
    "parse_result",
    "parse_sweep",
    "read_counts",
    "read_metrics",
    "read_run",
    "save_token_page",
    "sweep_table",
]
