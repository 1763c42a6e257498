"""The audio files that a command names: files, and the files in folders."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from ser_bench.audio import AudioInfo
from ser_bench.corpora.audio_files import level_warnings, probe_each, search_folder
from ser_bench.corpora.names import existing_form
from ser_bench.errors import BadClipError, ConfigError
from ser_bench.types import Clip

log = logging.getLogger(__name__)

HOW_TO_SKIP = "on_bad_clip=skip leaves out and lists such files"


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


def clips_of(paths: Sequence[Path], max_duration_s: float, skipped: dict[str, str] | None = None) -> dict[str, Clip]:
    """Each file of `audio_files` as a clip whose id is its path. All are decoded once to check them.

    The warnings are those of a corpus.

    Args:
        paths: files and folders.
        max_duration_s: longer files cannot be used.
        skipped: receives path → reason of each file that cannot be used; None: such a file is an error.

    Raises:
        ConfigError: as in `audio_files`.
        BadClipError: a file cannot be used and `skipped` is None, or no file can be used.
    """
    infos: dict[str, AudioInfo] = {}
    for path, result in probe_each(audio_files(paths), max_duration_s, "checking audio"):
        if isinstance(result, AudioInfo):
            infos[str(path)] = result
        elif skipped is not None:
            skipped[str(path)] = result
        else:
            raise BadClipError(f"{result} ({HOW_TO_SKIP})")
    if skipped and not infos:
        raise BadClipError(f"{next(iter(skipped.values()))}; no file can be used")
    for warning in level_warnings("predict", infos):
        log.warning("warning  %s", warning)
    return {
        path: Clip(path, Path(path), "", "", duration_s=info.duration_s, digest=info.digest)
        for path, info in infos.items()
    }
