"""Data sheets of the corpora: one module per corpus, each with a `SHEET`.

The modules of this package are imported automatically. `docs/corpora.md` ("Add a corpus") describes how to add one.
"""

from __future__ import annotations

import importlib
import pkgutil

from ser_bench.corpora.data_sheet import DataSheet
from ser_bench.errors import ConfigError

__all__ = ["SHEETS", "import_all", "sheet_of"]


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


def sheet_of(name: str) -> DataSheet:
    """Return the data sheet of a corpus.

    Raises:
        ConfigError: if no corpus has this name.
    """
    if name not in SHEETS:
        raise ConfigError(f"unknown corpus {name!r}; choose one of {', '.join(SHEETS)}")
    return SHEETS[name]
