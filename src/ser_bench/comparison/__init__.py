"""Comparison of stored runs, and the report about it.

- `run_groups`: which stored runs are compared, and which belong to one configuration;
- `fold_pooling`: the folds of a run group, pooled on the clips that all groups predicted;
- `paired`: the paired comparison of run groups; `verdict`: its result in three sentences;
- `report`: the content of a report and its files, made of `report_tables`, `report_figures`, `report_html` (with
  `report.html.j2`) and `report_markdown`;
- `requirements`: whether runs meet `test/uar_low>=.70`, for `ser-bench require`;
- `claims`: figures that other publications claim.
"""

from ser_bench.comparison.report import REPORT_TITLE, Report, publish, write
from ser_bench.comparison.report_markdown import all_as_text, as_text

__all__ = ["REPORT_TITLE", "Report", "all_as_text", "as_text", "publish", "write"]
