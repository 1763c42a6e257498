"""Comparison of stored runs, and the report about it.

- `run_groups`: which runs belong together; `paired`: the paired comparison of run groups;
- `verdict`: the comparison in words; `report_tables`, `report_figures`, `across_protocols`: what a report shows;
- `report`: the content of a report; `markdown`, `html_page`, `report_files`: a report as text, page and files;
- `claims`: figures that others report.
"""

from ser_bench.comparison.markdown import all_as_text, as_text
from ser_bench.comparison.report import Report
from ser_bench.comparison.report_files import write

__all__ = ["Report", "all_as_text", "as_text", "write"]
