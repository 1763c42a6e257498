"""Search and check of the audio files of a corpus.

The properties of each decoded file are cached, one cache entry per corpus folder: path → [size, modification time,
properties]. A file that has not changed is not decoded again.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ser_bench import audio, config
from ser_bench.audio import AudioInfo
from ser_bench.cache import Cache
from ser_bench.errors import BadClipError, CorpusError

VERSION = 2
"""Part of the cache key; increase it when `audio.probe` refuses files that it used to accept, or measures more."""
MAX_LISTED_CLIPS = 5
"""Number of clips that a warning lists by name, and of extensions that it lists."""


def default_root(name: str, cache_dir: Path | None = None) -> Path:
    """Return the folder that `ser-bench corpora prepare` fills and that `corpus.root=null` reads."""
    return (cache_dir or config.default_cache_dir()) / "corpora" / name


@dataclass(frozen=True, slots=True)
class FolderSearch:
    """Result of the search of a folder.

    Attributes:
        audio: files with an extension of a format that libsndfile reads, sorted.
        others: extension in lower case → number of the other files; "" for files without an extension.
    """

    audio: list[Path]
    others: Counter[str]

    def unread(self) -> str:
        """Return number and extensions of the audio and video files that libsndfile does not read; "" without any."""
        unread = Counter({suffix: n for suffix, n in self.others.items() if suffix in audio.UNREAD_EXTENSIONS})
        return f"{_by_extension(unread)}, which libsndfile does not read" if unread else ""

    def explanation(self) -> str:
        """Return what is in a folder without audio, and how to make audio of it."""
        if unread := self.unread():
            return f"it has {unread}: {audio.HOW_TO_CONVERT}"
        return f"it has {_by_extension(self.others)}" if self.others else "it has no files"

    def warnings(self, name: str) -> list[str]:
        """Return a warning if the folder contains files that libsndfile does not read.

        Args:
            name: of the corpus, which is put before the warning.
        """
        unread = self.unread()
        return [f"{name}: {unread}, are left out; {audio.HOW_TO_CONVERT}"] if unread else []


def find_audio(root: Path) -> list[Path]:
    """Return every audio file below a folder, sorted; see `search_folder`."""
    return search_folder(root).audio


def search_folder(root: Path) -> FolderSearch:
    """Search a folder at any depth, by extension. Hidden files and folders are ignored.

    Links to folders are followed, but no folder is searched twice, so that links in a circle end. A link to a folder
    that contains `root` itself is not followed, because it would add everything beside the corpus. A file that is
    reached in two ways under the same name counts once. Two names of one file are two files, because stores that keep
    each content once link both to it.

    Raises:
        CorpusError: if a folder cannot be read. A folder `root` that does not exist is an empty one.
    """
    paths: dict[tuple[str, Path], Path] = {}  # (name, real path) → path
    others: Counter[str] = Counter()
    for folder, real_folder, names in _each_folder(root):
        for name in names:
            path = folder / name
            if path.suffix.lower() not in audio.EXTENSIONS:
                others[path.suffix.lower()] += 1
            elif not path.is_symlink():
                paths[name, real_folder / name] = path
            else:
                paths.setdefault((name, Path(os.path.realpath(path))), path)
    return FolderSearch(sorted(paths.values()), others)


def _each_folder(root: Path) -> Iterator[tuple[Path, Path, list[str]]]:
    """Yield each folder once, as in `search_folder`: its path, its real path, and the names of its visible files.

    Folders that are reached without a link come first, so that they keep their own path.
    """
    top, searched, pending = Path(os.path.realpath(root)), set[Path](), [root]
    while pending:
        links: list[Path] = []
        for start in sorted(pending):
            if start != root and top.is_relative_to(os.path.realpath(start)):
                continue
            for folder, folders, names in os.walk(start, onerror=_refuse_unreadable):
                path, real_path = Path(folder), Path(os.path.realpath(folder))
                if real_path in searched:
                    folders.clear()
                    continue
                searched.add(real_path)
                folders[:] = [name for name in folders if not name.startswith(".") and name != "__MACOSX"]
                links += [path / name for name in folders if (path / name).is_symlink()]
                yield path, real_path, [name for name in names if not name.startswith(".")]
        pending = links


def level_warnings(name: str, infos: Mapping[str, AudioInfo]) -> list[str]:
    """Return warnings on silent clips, on channels that cancel, and on samples far above full scale.

    Args:
        name: of the corpus, which is put before each warning.
        infos: id of a clip → properties of its file.
    """
    lines = []
    silent = [clip for clip, info in infos.items() if info.silent]
    if silent:
        lines.append(f"{name}: {len(silent):,} of {len(infos):,} clips are silent (not left out): {some(silent)}")
    cancelled = [clip for clip, info in infos.items() if info.cancelled]
    if cancelled:
        lines.append(
            f"{name}: in {len(cancelled):,} of {len(infos):,} clips the channels cancel when they are averaged: "
            f"{some(cancelled)}; replace each by one of its channels, for example with `sox clip.wav new.wav remix 1`"
        )
    loud = [clip for clip, info in infos.items() if info.peak > audio.LOUD_PEAK]
    if loud:
        worst = max(loud, key=lambda clip: infos[clip].peak)
        lines.append(
            f"{name}: {len(loud):,} of {len(infos):,} clips exceed full scale by more than a factor of "
            f"{audio.LOUD_PEAK:g}, {worst} by {infos[worst].peak:,.0f}; openSMILE and audio language models get them "
            "clipped at full scale. Divide their samples, for example with `sox --norm clip.wav new.wav`"
        )
    return lines


def some(names: Sequence[str]) -> str:
    """Return the first names of a list, for a message."""
    return ", ".join(names[:MAX_LISTED_CLIPS]) + (", …" if len(names) > MAX_LISTED_CLIPS else "")


def _refuse_unreadable(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise CorpusError(f"{error.filename}: this folder cannot be read ({error.strerror})") from error


def _by_extension(counts: Counter[str]) -> str:
    """Return numbers and extensions, the most frequent first: "3 .m4a and 1 .wma files"."""
    named = [f"{n:,} {suffix}" if suffix else f"{n:,} other" for suffix, n in counts.most_common(MAX_LISTED_CLIPS)]
    return " and ".join([", ".join(named[:-1]), named[-1]] if len(named) > 1 else named) + " files"


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
