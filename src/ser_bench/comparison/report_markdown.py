"""A comparison as Markdown, and as plain text for the terminal.

Names, remarks and messages come from users and from other publications. In Markdown they are shown as they are: no
character in them is markup.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

import pandas as pd

from ser_bench.comparison import report_tables
from ser_bench.comparison.claims import Claim
from ser_bench.comparison.paired import Comparison
from ser_bench.comparison.verdict import heading, leakage_statements, share, verdict
from ser_bench.errors import NotComparableError
from ser_bench.evaluation.metrics import METRICS

TERMINAL_COLUMNS = 118
TERMINAL_HEADINGS = (
    *("predictor", "rank", "UAR", "accuracy", "macro-F1", "log-loss", "ECE", "abstentions", "clips/s"),
    *("USD/1,000 clips", "training time"),
)
"""Columns of the main table that fit a terminal. The files have all columns."""
LEVEL_HEADINGS = (
    *("predictor", "rank", "UAR", *(entry.title for entry in METRICS.values() if entry.of_levels)),
    *("accuracy", "log-loss", "abstentions", "clips/s", "training time"),
)
"""The same for ordered levels."""
MARKUP = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])")
"""Characters that can start markup inside a line, in the dialects of GitHub and MLflow; "_" only beside a word."""
ENTITY = re.compile(r"&(?=#?\w+;)")


def as_text(comparison: Comparison) -> str:
    """Return heading, table and verdict. Only UAR has its interval, because of the width of a terminal."""
    headings, rows = report_tables.main_table(comparison)
    texts = [[c.whole if name == "UAR" else c.text for name, c in zip(headings, row, strict=True)] for row in rows]
    table = pd.DataFrame(texts, columns=headings)
    wanted = LEVEL_HEADINGS if comparison.baseline.predictions.ordinal else TERMINAL_HEADINGS
    table = table[[name for name in wanted if name in headings]]
    remark = report_tables.detectable_remark(comparison)
    said = [*verdict(comparison), *([remark] if remark else [])]
    sentences = [textwrap.fill(sentence, TERMINAL_COLUMNS) for sentence in said]
    votes = report_tables.votes_table(comparison)
    of_votes = [] if votes is None else [_short(*votes).to_string(index=False), ""]
    return "\n".join([heading(comparison), table.to_string(index=False), "", *of_votes, *sentences])


def _short(headings: Sequence[str], rows: Sequence[Sequence[report_tables.Cell]]) -> pd.DataFrame:
    """Return a table of texts without details."""
    return pd.DataFrame([[cell.text for cell in row] for row in rows], columns=list(headings))


def all_as_text(comparisons: Sequence[Comparison | NotComparableError]) -> str:
    """Return several comparisons as text; for refused runs, the reason."""
    return "\n\n".join(as_text(c) if isinstance(c, Comparison) else f"not compared: {c}" for c in comparisons)


def as_markdown(comparison: Comparison, claims: Sequence[Claim] = ()) -> str:
    """Return verdict, main table, leakage statements, claims, and recall by label."""
    parts = [
        f"## {escaped(heading(comparison))}",
        escaped(" ".join(verdict(comparison))),
        as_markdown_table(report_tables.as_frame(*report_tables.main_table(comparison))),
        *_votes_and_pairs(comparison),
        "Leakage by run:\n\n" + "\n".join(f"- {escaped(statement)}" for statement in leakage_statements(comparison)),
    ]
    if claims:
        table = as_markdown_table(report_tables.claims_table(claims))
        parts.append(f"Claims of other publications, not measured and not tested here:\n\n{table}")
    remark = report_tables.sentence_remark(comparison)
    if remark:
        parts.append(escaped(remark))
    recall = as_markdown_table(report_tables.by_class(comparison, "recall"))
    parts.append(f"Recall by {comparison.kind_of_label}:\n\n{recall}")
    return "\n\n".join(parts) + "\n"


def _votes_and_pairs(comparison: Comparison) -> list[str]:
    """Return the table of soft-label metrics, and the differences that could have been seen, where they are known."""
    parts = []
    votes = report_tables.votes_table(comparison)
    if votes is not None:
        table = as_markdown_table(report_tables.as_frame(*votes))
        parts.append(f"Agreement with the votes of the listeners:\n\n{table}")
    remark = report_tables.detectable_remark(comparison)
    if comparison.pairs:
        table = as_markdown_table(report_tables.as_frame(*report_tables.pairs_table(comparison)))
        parts.append("\n\n".join(["Differences of pairs:", table, *([escaped(remark)] if remark else [])]))
    return parts


def as_markdown_table(frame: pd.DataFrame) -> str:
    """Return a table as Markdown, with every heading and cell escaped."""
    rows = [[_cell(value) for value in row] for row in frame.itertuples(index=False)]
    lines = ["| " + " | ".join(map(_cell, frame.columns)) + " |", "|" + "---|" * len(frame.columns)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def _cell(value: object) -> str:
    return escaped(share(value) if isinstance(value, float) else str(value))


def escaped(text: str) -> str:
    r"""Return a text as Markdown that shows it literally, in one line.

    >>> print(escaped("a|b <script> *c* cnn_text"))
    a\|b &lt;script&gt; \*c\* cnn_text
    """
    line = MARKUP.sub(r"\\\g<0>", ENTITY.sub("&amp;", " ".join(text.split())))
    return line.replace("<", "&lt;").replace(">", "&gt;")
