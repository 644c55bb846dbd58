"""Plain data to one self-contained HTML page, and its plots as PNG."""

from foveate.report.page import (
    DatasetSummary,
    Layer,
    Mistake,
    RunPage,
    most_confident_mistakes,
    render,
    write_report,
)

__all__ = [
    "DatasetSummary",
    "Layer",
    "Mistake",
    "RunPage",
    "most_confident_mistakes",
    "render",
    "write_report",
]
