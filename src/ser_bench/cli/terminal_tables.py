"""Output of the command line: tables, drawn with rich in a terminal and aligned plain text elsewhere; and JSON."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

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


def print_json(value: Any) -> None:
    """Print a value as JSON to standard output; a number that JSON does not have (NaN, infinity) becomes null.

    Characters that the terminal cannot show, such as undecodable bytes of a file name, are escaped.
    """
    plain = _without_nan(value)
    text = json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(plain, indent=1, allow_nan=False)
    print(text)


def note(text: str) -> None:
    """Print a line about the command itself to standard error, so that standard output holds nothing but the result."""
    print(text, file=sys.stderr, flush=True)


def print_bytes(content: bytes) -> None:
    """Write UTF-8 text to standard output at once, with undecodable bytes of a file name as they are."""
    buffer = getattr(sys.stdout, "buffer", None)
    if buffer is None:
        sys.stdout.write(content.decode("utf-8", errors="replace"))
    else:
        sys.stdout.flush()
        buffer.write(content)
        buffer.flush()


def _without_nan(value: Any) -> Any:
    """Return a copy in which null stands for every number that is not finite.

    >>> _without_nan({"uar": float("nan"), "rows": [1, 2.5]})
    {'uar': None, 'rows': [1, 2.5]}
    """
    if isinstance(value, Mapping):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
