"""What is known of each audio file, kept between runs: a file that has not changed is not decoded again.

One entry a corpus folder, path → [bytes, modification time, facts]. 7,442 decodes become one small file to read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ser_bench import audio
from ser_bench.audio import AudioInfo
from ser_bench.cache import Cache
from ser_bench.errors import BadClipError

VERSION = 1
"""Raised when `audio.probe` learns to refuse something that it accepted."""


def probe_all(
    paths: Sequence[Path], root: Path, max_duration_s: float, cache: Cache, skip: bool
) -> tuple[dict[Path, AudioInfo], dict[Path, str]]:
    """Facts of every usable file, and path → reason for the others.

    Raises:
        BadClipError: the first unusable file in the order given, unless `skip`.
        CacheError: the index cannot be written.
    """
    key = Cache.key(kind="audio index", version=VERSION, root=str(root.absolute()), max_duration_s=max_duration_s)
    known: dict[str, list[Any]] = cache.read_json(key) or {}
    infos: dict[Path, AudioInfo] = {}
    bad: dict[Path, str] = {}
    stamps = {path: _stamp(path) for path in paths}
    for path in paths:
        entry = known.get(str(path))
        if entry is not None and entry[:2] == stamps[path]:
            infos[path] = AudioInfo(*entry[2:])
    new = [path for path in paths if path not in infos]
    try:
        for path, result in probe_each(new, max_duration_s, "checking audio"):
            if isinstance(result, AudioInfo):
                infos[path] = result
                known[str(path)] = [*stamps[path], *astuple(result)]
            elif skip:
                bad[path] = result
            else:
                raise BadClipError(f"{result} (on_bad_clip=skip leaves such files out and lists them)")
    finally:  # what an interrupted or refused load has decoded is not lost
        if any(path in infos for path in new):
            cache.write_json(key, known)
    return infos, bad


def probe_each(
    paths: Sequence[Path], max_duration_s: float, description: str
) -> Iterator[tuple[Path, AudioInfo | str]]:
    """(path, facts or what is wrong) in order; decoding releases the interpreter lock, so threads are enough."""
    executor = ThreadPoolExecutor(max_workers=os.cpu_count() or 1)
    try:
        results = executor.map(lambda path: _try(path, max_duration_s), paths)
        bar = tqdm(results, total=len(paths), desc=description, unit="clip", disable=None, delay=1.0)
        yield from zip(paths, bar, strict=True)
    finally:
        executor.shutdown(cancel_futures=True)


def _try(path: Path, max_duration_s: float) -> AudioInfo | str:
    try:
        return audio.probe(path, max_duration_s)
    except BadClipError as error:
        return str(error)


def _stamp(path: Path) -> list[int]:
    """[bytes, nanoseconds]; zeros where there is no file, which `probe` then says."""
    try:
        status = path.stat()
    except OSError:
        return [0, 0]
    return [status.st_size, status.st_mtime_ns]
