"""The audio files that a command names: files, and the files in folders."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from ser_bench.corpora.audio_files import search_folder
from ser_bench.corpora.names import existing_form
from ser_bench.errors import ConfigError

log = logging.getLogger(__name__)


def audio_files(paths: Sequence[Path]) -> list[Path]:
    """Return each audio file named, or found in a folder named, in order. One that is named in two ways counts once.

    Files in folders that cannot be read as audio are counted in a warning.

    Raises:
        ConfigError: a path does not exist, or there is no audio file below the folders.
    """
    files: dict[tuple[str, str], Path] = {}  # (name, real path) → path as given
    explanation = ""
    warnings: list[str] = []
    for path in map(existing_form, paths):
        if not path.exists():
            raise ConfigError(f"{path}: no such file or folder")
        search = search_folder(path) if path.is_dir() else None
        if search is not None:
            explanation = explanation or search.explanation()
            warnings += search.warnings(str(path))
        for file in [path] if search is None else search.audio:
            files.setdefault((file.name, os.path.realpath(file)), file)
    if not files:
        raise ConfigError(f"{paths[0]}: there is no audio file in this folder; {explanation}")
    for warning in warnings:
        log.warning("warning  %s", warning)
    return list(files.values())
