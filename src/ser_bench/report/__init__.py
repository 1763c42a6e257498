"""Comparisons for people: in the terminal, as Markdown, JSON, and one self-contained HTML page."""

from ser_bench.report.document import Report
from ser_bench.report.text import all_as_text, as_text
from ser_bench.report.write import write

__all__ = ["Report", "all_as_text", "as_text", "write"]
