"""Data sheets of the corpora: one module per corpus, each with a `SHEET`.

The modules of this package are imported automatically. `docs/corpora.md` ("Add a corpus") describes how to add one.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import replace
from pathlib import Path

from ser_bench.corpora.data_sheet import DataSheet
from ser_bench.errors import ConfigError

__all__ = ["SHEETS", "import_all", "sheet_of"]

TABLE = "table"
"""Name of the corpus whose clips and labels a CSV file lists."""
DATABASE = "audformat"
"""Name of the corpus that is a database with a header."""
TABLE_SUFFIXES = (".csv", ".tsv", ".txt")
"""Endings, in lower case, of the files that may list the clips of a corpus."""


def import_all() -> dict[str, DataSheet]:
    """Import every module of this package and return name → data sheet, sorted by name.

    Raises:
        ValueError: if the name of a data sheet is not the name of its module.
    """
    sheets: dict[str, DataSheet] = {}
    for name in sorted(module.name for module in pkgutil.iter_modules(__path__)):
        sheets[name] = importlib.import_module(f"{__name__}.{name}").SHEET
        if sheets[name].name != name:
            raise ValueError(
                f"corpora/sheets/{name}.py: the name of SHEET is {sheets[name].name!r}; it must be {name!r}"
            )
    return sheets


SHEETS: dict[str, DataSheet] = import_all()
"""Name of a corpus → its data sheet."""


def sheet_of(name: str, root: str | Path | None = None) -> DataSheet:
    """Return the data sheet of a corpus.

    A corpus of the user may have any other name if its root is a CSV file or an audformat database; its sheet is that
    of `corpus=table` or `corpus=audformat`.

    Args:
        name: name of the corpus.
        root: folder or CSV file of the corpus, if known.

    Raises:
        ConfigError: if no corpus has this name, and its root is no CSV file and no database.
        CorpusError: if the header of a database cannot be read.
    """
    if name not in SHEETS or name == DATABASE:
        sheet = _sheet_of_database(name, root)
        if sheet is not None:
            return sheet
    if name in SHEETS:
        return SHEETS[name]
    if root is not None and Path(root).suffix.lower() in TABLE_SUFFIXES:
        return replace(SHEETS[TABLE], name=name)
    raise ConfigError(
        f"unknown corpus {name!r}; choose one of {', '.join(SHEETS)}, or let corpus.root name a CSV file of your own "
        "clips or an audformat database (docs/corpora.md)"
    )


def _sheet_of_database(name: str, root: str | Path | None) -> DataSheet | None:
    """Return the data sheet of the audformat database in a folder; None if the folder has none."""
    from ser_bench.corpora.sheets.audformat import HEADER, sheet_of_database

    folder = None if root is None else Path(root).expanduser()
    return sheet_of_database(name, folder) if folder is not None and (folder / HEADER).is_file() else None
