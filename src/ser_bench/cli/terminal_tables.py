"""Tables of the command line: drawn with rich in a terminal, aligned plain text elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

Cell = str | float
"""A text, left-aligned; or a number, right-aligned with three decimals."""
SPACES_BETWEEN_COLUMNS = 2


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    """Print a table to standard output.

    Args:
        columns: the headings.
        rows: one cell per heading.
    """
    if sys.stdout.isatty():
        from rich.console import Console

        Console().print(rich_table(columns, rows))
    else:
        print(plain_table(columns, rows))


def plain_table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """The table as text with aligned columns, without lines and without line breaks in cells.

    >>> print(plain_table(["file", "angry"], [["a.wav", 0.25], ["folder/b.wav", 0.5]]))
    file          angry
    a.wav         0.250
    folder/b.wav  0.500
    """
    texts = [list(columns), *([_text(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    numeric = _numeric_columns(columns, rows)
    lines = [
        (" " * SPACES_BETWEEN_COLUMNS).join(
            text.rjust(width) if i in numeric else text.ljust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in texts
    ]
    return "\n".join(line.rstrip() for line in lines)


def rich_table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> Table:
    """The table for a terminal: long cells are continued on the next line, square brackets are printed as they are."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table, numeric = Table(box=box.SIMPLE_HEAD), _numeric_columns(columns, rows)
    for i, name in enumerate(columns):
        table.add_column(Text(name), justify="right" if i in numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_text(cell)) for cell in row))
    return table


def _numeric_columns(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> set[int]:
    return {i for i in range(len(columns)) if rows and all(not isinstance(row[i], str) for row in rows)}


def _text(cell: Cell) -> str:
    return cell if isinstance(cell, str) else f"{cell:.3f}"
