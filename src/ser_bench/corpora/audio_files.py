"""Search and check of the audio files of a corpus.

The properties of each decoded file are cached, one cache entry per corpus folder: path → [size, modification time,
properties]. A file that has not changed is not decoded again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ser_bench import audio, config
from ser_bench.audio import AudioInfo
from ser_bench.cache import Cache
from ser_bench.errors import BadClipError

VERSION = 2
"""Part of the cache key; increase it when `audio.probe` refuses files that it used to accept, or measures more."""


def default_root(name: str, cache_dir: Path | None = None) -> Path:
    """Return the folder that `ser-bench corpora prepare` fills and that `corpus.root=null` reads."""
    return (cache_dir or config.default_cache_dir()) / "corpora" / name


def find_audio(root: Path) -> list[Path]:
    """Return every audio file below a folder, by extension, sorted. Hidden files and folders are ignored."""
    paths: list[Path] = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__MACOSX"]
        paths += [
            Path(folder, name)
            for name in files
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in audio.EXTENSIONS  # noqa: PTH122 (speed)
        ]
    return sorted(paths)


def probe_all(
    paths: Sequence[Path], root: Path, max_duration_s: float, cache: Cache, skip: bool
) -> tuple[dict[Path, AudioInfo], dict[Path, str]]:
    """Check audio files, and read the properties of unchanged files from the cache.

    Args:
        paths: the audio files.
        root: folder of the corpus; part of the cache key.
        max_duration_s: longer files are refused.
        cache: cache of the properties.
        skip: True: report files that cannot be used, False: raise BadClipError for the first of them.

    Returns:
        Properties of each usable file, and path → reason for each other file.

    Raises:
        BadClipError: if a file cannot be used and `skip` is False; the first such file in the given order.
        CacheError: if the cache cannot be written.
    """
    key = Cache.key(kind="audio index", version=VERSION, root=str(root.absolute()), max_duration_s=max_duration_s)
    cached: dict[str, list[Any]] = cache.read_json(key) or {}
    infos: dict[Path, AudioInfo] = {}
    bad: dict[Path, str] = {}
    stamps = {path: _stamp(path) for path in paths}
    for path in paths:
        entry = cached.get(str(path))
        if entry is not None and entry[:2] == stamps[path]:
            infos[path] = AudioInfo(*entry[2:])
    new = [path for path in paths if path not in infos]
    try:
        for path, result in probe_each(new, max_duration_s, "checking audio"):
            if isinstance(result, AudioInfo):
                infos[path] = result
                cached[str(path)] = [*stamps[path], *astuple(result)]
            elif skip:
                bad[path] = result
            else:
                raise BadClipError(f"{result} (on_bad_clip=skip leaves out and lists such files)")
    finally:  # keep what was decoded before an interruption or an error
        if any(path in infos for path in new):
            cache.write_json(key, cached)
    return infos, bad


def probe_each(
    paths: Sequence[Path], max_duration_s: float, description: str
) -> Iterator[tuple[Path, AudioInfo | str]]:
    """Decode files in parallel; yield each path in order, with its properties or the reason why it cannot be used.

    Threads are sufficient because decoding releases the global interpreter lock.
    """
    executor = ThreadPoolExecutor(max_workers=os.cpu_count() or 1)
    try:
        results = executor.map(lambda path: _probe(path, max_duration_s), paths)
        bar = tqdm(results, total=len(paths), desc=description, unit="clip", disable=None, delay=1.0)
        yield from zip(paths, bar, strict=True)
    finally:
        executor.shutdown(cancel_futures=True)


def _probe(path: Path, max_duration_s: float) -> AudioInfo | str:
    try:
        return audio.probe(path, max_duration_s)
    except BadClipError as error:
        return str(error)


def _stamp(path: Path) -> list[int]:
    """Return [size in bytes, modification time in ns]; zeros if there is no file, which `audio.probe` then reports."""
    try:
        status = path.stat()
    except OSError:
        return [0, 0]
    return [status.st_size, status.st_mtime_ns]
