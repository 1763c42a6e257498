"""A report as files: one self-contained HTML page, Markdown, JSON."""

from __future__ import annotations

import json
from pathlib import Path

from ser_bench.comparison.html_page import as_html
from ser_bench.comparison.report import Report

NAME = "comparison"


def write(report: Report, folder: Path) -> list[Path]:
    """Write `comparison.html`, `.md` and `.json` into the folder, which is made; return their paths, HTML first."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "html": as_html(report),
        "md": report.markdown(),
        "json": json.dumps(report.to_json(), indent=1, ensure_ascii=False) + "\n",
    }
    paths = []
    for suffix, content in contents.items():
        path = folder / f"{NAME}.{suffix}"
        path.write_text(content, encoding="utf-8")
        paths.append(path)
    return paths
