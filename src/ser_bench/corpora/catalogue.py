"""The data sheets by name, and where each corpus is looked for."""

from __future__ import annotations

import os
from pathlib import Path

from ser_bench import config
from ser_bench.audio import EXTENSIONS
from ser_bench.corpora import cremad, csv_table, demo, emodb, ravdess, tess
from ser_bench.corpora.data_sheet import Sheet
from ser_bench.errors import ConfigError

SHEETS: dict[str, Sheet] = {
    sheet.name: sheet for sheet in (cremad.SHEET, ravdess.SHEET, emodb.SHEET, tess.SHEET, demo.SHEET, csv_table.SHEET)
}


def sheet_of(name: str) -> Sheet:
    """The data sheet of this name.

    Raises:
        ConfigError: there is none.
    """
    if name not in SHEETS:
        raise ConfigError(f"unknown corpus {name!r}; choose one of {', '.join(SHEETS)}")
    return SHEETS[name]


def default_root(name: str, cache_dir: Path | None = None) -> Path:
    """Where `prepare` puts a corpus and `corpus.root: null` looks for it."""
    return (cache_dir or config.default_cache_dir()) / "corpora" / name


def find(root: Path) -> list[Path]:
    """Every audio file below the folder, by extension, sorted; hidden files and folders are passed over."""
    found: list[Path] = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__MACOSX"]
        found += [
            Path(folder, name)
            for name in files
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS  # noqa: PTH122 (speed)
        ]
    return sorted(found)
