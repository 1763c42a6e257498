"""A comparison as plain text for the terminal, and as Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import pandas as pd

from ser_bench.comparison import report_tables
from ser_bench.comparison.claims import Claim
from ser_bench.comparison.paired import Comparison
from ser_bench.comparison.verdict import heading, leak_statement, share, verdict
from ser_bench.errors import NotComparableError

TERMINAL_COLUMNS = 118
IN_THE_TERMINAL = (
    *("predictor", "UAR", "accuracy", "macro-F1", "log-loss", "ECE", "abstained", "clips/s", "USD/1,000", "training"),
)
"""Columns that fit a terminal; files hold all."""


def as_text(comparison: Comparison) -> str:
    """Heading, table, and the verdict in three sentences."""
    headings, rows = report_tables.main_table(comparison)
    # Accuracy and macro-F1 without their intervals, for the width of a terminal.
    short = [
        [cell.whole if name in ("UAR",) else cell.text for name, cell in zip(headings, row, strict=True)]
        for row in rows
    ]
    table = pd.DataFrame(short, columns=headings)[list(IN_THE_TERMINAL)]
    said = [textwrap.fill(sentence, TERMINAL_COLUMNS) for sentence in verdict(comparison)]
    return "\n".join([heading(comparison), table.to_string(index=False), "", *said])


def all_as_text(comparisons: Sequence[Comparison | NotComparableError]) -> str:
    """Several comparisons; one that was refused says why."""
    return "\n\n".join(as_text(c) if isinstance(c, Comparison) else f"not compared: {c}" for c in comparisons)


def as_markdown(comparison: Comparison, claims: Sequence[Claim] = ()) -> str:
    """Verdict, table, leakage statements, claims, and the scores of every class."""
    parts = [
        f"## {heading(comparison)}",
        " ".join(verdict(comparison)),
        as_markdown_table(report_tables.as_frame(*report_tables.main_table(comparison))),
        "What leaked, run by run:\n\n" + "\n".join(f"- {statement}" for statement in leak_statements(comparison)),
    ]
    if claims:
        parts.append(
            f"Claimed elsewhere, not measured here and part of no test:\n\n{as_markdown_table(claims_table(claims))}"
        )
    remark = report_tables.sentence_remark(comparison)
    if remark:
        parts.append(remark)
    parts.append(as_markdown_table(report_tables.by_class(comparison)))
    return "\n\n".join(parts) + "\n"


def leak_statements(comparison: Comparison) -> list[str]:
    """One a run, of the folds compared."""
    return [leak_statement(run) for run in comparison.runs]


def claims_table(claims: Sequence[Claim]) -> pd.DataFrame:
    """Claims as a table of texts."""
    return pd.DataFrame(
        [
            {
                "system": f"{claim.system} (claimed)",
                "UAR": "" if claim.uar is None else share(claim.uar),
                "accuracy": "" if claim.accuracy is None else share(claim.accuracy),
                "protocol": claim.protocol,
                "note": claim.note,
                "source": claim.source,
            }
            for claim in claims
        ]
    )


def as_markdown_table(frame: pd.DataFrame) -> str:
    """A Markdown table; bars inside cells are escaped."""
    cells = [[_cell(value) for value in row] for row in frame.itertuples(index=False)]
    lines = ["| " + " | ".join(map(_cell, frame.columns)) + " |", "|" + "---|" * len(frame.columns)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in cells])


def _cell(value: object) -> str:
    return (share(value) if isinstance(value, float) else str(value)).replace("|", "\\|")
