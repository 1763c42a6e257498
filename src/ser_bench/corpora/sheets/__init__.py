"""Data sheets of the corpora: one module per corpus, each with a `SHEET`.

The modules of this package are imported automatically. `docs/corpora.md` ("Add a corpus") describes how to add one.
"""

from __future__ import annotations

import importlib
import pkgutil

from ser_bench.corpora.data_sheet import DataSheet
from ser_bench.errors import ConfigError

__all__ = ["SHEETS", "sheet_of"]


def _import_all() -> dict[str, DataSheet]:
    """Import every module of this package; return name → data sheet, sorted by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {name: importlib.import_module(f"{__name__}.{name}").SHEET for name in names}


SHEETS: dict[str, DataSheet] = _import_all()
"""Name of a corpus → its data sheet."""


def sheet_of(name: str) -> DataSheet:
    """Return the data sheet of a corpus.

    Raises:
        ConfigError: if no corpus has this name.
    """
    if name not in SHEETS:
        raise ConfigError(f"unknown corpus {name!r}; choose one of {', '.join(SHEETS)}")
    return SHEETS[name]
