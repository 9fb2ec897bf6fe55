"""Reads run folders; writes tables, a page of tokens and, by `vmoe.report.plots`, which needs matplotlib, plots.

No torch.
"""

from vmoe.report.comparison import comparison
from vmoe.report.runs import Figures, Layer, Routing, Run, parse_result, read_run
from vmoe.report.sweep import Sweep, parse_sweep, sweep_table
from vmoe.report.table import Table
from vmoe.report.token_page import TokenLayer, TokenRouting, save_token_page

__all__ = [
    "Figures",
    "Layer",
    "Routing",
    "Run",
    "Sweep",
    "Table",
    "TokenLayer",
    "TokenRouting",
    "comparison",
    "parse_result",
    "parse_sweep",
    "read_run",
    "save_token_page",
    "sweep_table",
]
