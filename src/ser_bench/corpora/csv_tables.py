"""The strict reader of every CSV table that comes with a corpus or lists one.

Each line is one row with as many cells as the header. A lenient reader shifts the cells of a line with one comma too
many, and a stray quote makes it swallow the following lines, both without a message.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ser_bench.errors import CorpusError

SEPARATORS = ",;\t"
MAX_TABLE_BYTES = 256 << 20
"""Largest table that is read: 256 MiB. One million lines of a user's table have about 100 MB."""


@dataclass(frozen=True, slots=True)
class CsvLine:
    """One line below the header.

    Attributes:
        number: of the line in the file, counted from 1.
        cells: column → text without white space at its ends; {} if the line cannot be read.
        problem: why the line cannot be read, or "".
    """

    number: int
    cells: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""


def read_lines(
    path: Path, required: Sequence[str], advice: str, separators: str = ",", lower_names: bool = False
) -> list[CsvLine]:
    """Read every line below the header. Empty lines are left out.

    Args:
        path: the file, in UTF-8 with or without a byte order mark.
        required: names of columns that must exist.
        advice: what to do about an error; the end of its message.
        separators: possible separators; the one that is most frequent in the header is used.
        lower_names: True: column names are converted to lower case.

    Returns:
        The lines in order. A line with another number of cells than the header, or with a quote that is not closed on
        it, has a `problem`.

    Raises:
        CorpusError: if the file is not in UTF-8, is larger than `MAX_TABLE_BYTES`, lacks a column, or has a column
            twice.
    """
    try:
        if path.stat().st_size > MAX_TABLE_BYTES:
            raise CorpusError(f"{path}: has {path.stat().st_size:,} bytes, the limit is {MAX_TABLE_BYTES:,}; {advice}")
        with path.open(encoding="utf-8-sig") as file:
            texts = list(file)  # not `splitlines`, which also splits at form feeds and at U+2028
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}: not a CSV file in UTF-8 ({error}); {advice}") from error
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read ({error.strerror}); {advice}") from error
    separator = max(separators, key=texts[0].count) if texts else separators[0]
    header, problem = _cells(texts[0], separator) if texts else ([], "")
    if problem:
        raise CorpusError(f"{path} line 1: {problem}; {advice}")
    columns = [name.lower() if lower_names else name for name in header]
    _check_columns(path, columns, required, advice)
    return [
        _line(number, text, columns, separator)
        for number, text in enumerate(texts[1:], start=2)
        if text.strip("\r\n \ufeff")
    ]


def read_rows(path: Path, required: Sequence[str], advice: str) -> list[CsvLine]:
    """Read every line below the header of a table whose lines must all be readable; arguments as in `read_lines`.

    Raises:
        CorpusError: as `read_lines`, and if a line cannot be read.
    """
    lines = read_lines(path, required, advice)
    for line in lines:
        if line.problem:
            raise CorpusError(f"{path} line {line.number}: {line.problem}; {advice}")
    return lines


def _line(number: int, text: str, columns: Sequence[str], separator: str) -> CsvLine:
    cells, problem = _cells(text, separator)
    if not problem and len(cells) != len(columns):
        problem = (
            f"{len(cells)} cells, but the header has {len(columns)}; a text that contains the separator "
            f"{separator!r} must be in double quotes"
        )
    return CsvLine(number, problem=problem) if problem else CsvLine(number, dict(zip(columns, cells, strict=True)))


def _cells(text: str, separator: str) -> tuple[list[str], str]:
    """Return the cells of one line, and why they cannot be read, or ""."""
    try:
        rows = list(csv.reader([text], delimiter=separator, strict=True))
    except csv.Error as error:
        return [], f"not a line of a CSV table ({error}); a double quote must be closed on its line, and doubled inside"
    return [cell.strip() for row in rows for cell in row], ""


def _check_columns(path: Path, columns: Sequence[str], required: Sequence[str], advice: str) -> None:
    missing = [name for name in required if name not in columns]
    if missing:
        raise CorpusError(f"{path}: no column {' or '.join(missing)}; the file has {list(columns)}; {advice}")
    repeated = [name for name, count in Counter(columns).items() if count > 1 and name]
    if repeated:
        raise CorpusError(f"{path}: the column {repeated[0]} occurs more than once; {advice}")
