"""Cache on disk: entries found by key, and computations whose results are read from it where they are stored.

An entry is one file: the BLAKE2b digest of the payload, then the payload. It is written to a temporary file and moved
into place, so that several processes can fill the same cache, and a process that is killed leaves no partial entry. An
entry whose digest does not match is removed and computed again.

Below a `MemoryFolder`, which is no folder of the disk, entries are kept in memory until they are cleared: what is
computed of the audio of a server's users must not be stored.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import tempfile
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar
from uuid import uuid4

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from ser_bench.errors import CacheError
from ser_bench.types import digest_of

DIGEST_BYTES = 16
NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EXDEV)
"""Errors of file systems that have no hard links."""
PROGRESS_AFTER_S = 2.0
"""A progress bar appears when the work takes longer than this."""

Item = TypeVar("Item")
Value = TypeVar("Value")


_in_memory: dict[Path, dict[Path, bytes]] = {}
"""Path of each `MemoryFolder` → path of an entry → payload."""


class MemoryFolder:
    """A path below which every `Cache` keeps its entries in memory; they are dropped with this object."""

    def __init__(self) -> None:
        self.path = Path(f"<memory {uuid4().hex}>")
        _in_memory[self.path] = {}
        weakref.finalize(self, _in_memory.pop, self.path, None)

    def clear(self) -> None:
        """Drop all entries."""
        _in_memory[self.path].clear()


class Cache:
    """A folder of entries. An entry's file is named by its key, in a subfolder named by the key's first two digits."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._entries = next((_in_memory[root] for root in folder.parents if root in _in_memory), None)

    @property
    def in_memory(self) -> bool:
        """Whether the folder is below a `MemoryFolder`."""
        return self._entries is not None

    @staticmethod
    def key(**parts: Any) -> str:
        """Return the hexadecimal key of all that decides a result: content digest, parameters, version, …"""
        return digest_of(parts)

    def read(self, key: str) -> bytes | None:
        """Return the payload, or None if the entry is absent or damaged."""
        path = self._path(key)
        if self._entries is not None:
            return self._entries.get(path)
        try:
            blob = path.read_bytes()
        except OSError:
            return None
        digest, payload = blob[:DIGEST_BYTES], blob[DIGEST_BYTES:]
        if _digest(payload) == digest:
            return payload
        with contextlib.suppress(OSError):
            path.unlink()
        return None

    def write(self, key: str, payload: bytes) -> None:
        """Store the payload.

        Raises:
            CacheError: if the folder cannot be written (full disk, read-only).
        """
        self._store(key, payload, Path.replace)

    def write_first(self, key: str, payload: bytes) -> bytes:
        """Store the payload unless the key already has an entry, and return the payload that is stored.

        This is for results that differ when they are computed again: all processes then continue with the same one.

        Raises:
            CacheError: as in `write`.
        """
        self._store(key, payload, _link)
        stored = self.read(key)
        if stored is not None:
            return stored
        self.write(key, payload)  # the existing entry was damaged, and `read` has removed it
        return payload

    def _store(self, key: str, payload: bytes, move: Callable[[Path, Path], object]) -> None:
        path = self._path(key)
        if self._entries is not None:
            self._entries[path] = payload
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=".half-")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(_digest(payload) + payload)
                move(Path(name), path)
            finally:
                with contextlib.suppress(OSError):
                    Path(name).unlink()
        except OSError as error:
            raise CacheError(
                f"{self.folder}: cannot write to the cache ({error.strerror}). "
                "Free some space, or choose another folder with cache_dir=..."
            ) from error

    def read_array(self, key: str) -> npt.NDArray[Any] | None:
        """Return the array, or None if the entry is absent or damaged. Pickled objects are never loaded."""
        payload = self.read(key)
        return None if payload is None else _array_of(payload)

    def write_array(self, key: str, array: npt.NDArray[Any]) -> None:
        """Store a numeric array."""
        self.write(key, _bytes_of_array(array))

    def read_json(self, key: str) -> Any | None:
        """Return the JSON value, or None if the entry is absent or damaged."""
        payload = self.read(key)
        return None if payload is None else json.loads(payload)

    def write_json(self, key: str, value: Any) -> None:
        """Store a JSON value."""
        self.write(key, _bytes_of_json(value))

    def write_first_json(self, key: str, value: Any) -> Any:
        """Store a JSON value as `write_first` does, and return the value that is stored."""
        return json.loads(self.write_first(key, _bytes_of_json(value)))

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / key[2:]


@dataclass(frozen=True)
class PayloadFormat(Generic[Value]):
    """How a value is stored in an entry.

    Attributes:
        encode: value → payload.
        decode: payload → value; None or a ValueError if the payload is not of this format (it is computed again).
    """

    encode: Callable[[Value], bytes]
    decode: Callable[[bytes], Value | None]


def array_format(shape: tuple[int, ...] | None = None) -> PayloadFormat[npt.NDArray[Any]]:
    """Return NumPy's own format (.npy), which keeps shape and type; if `shape` is given, no other shape is read."""

    def decode(payload: bytes) -> npt.NDArray[Any] | None:
        array = _array_of(payload)
        return array if shape is None or array.shape == shape else None

    return PayloadFormat(_bytes_of_array, decode)


def float32_format(length: int) -> PayloadFormat[npt.NDArray[np.float32]]:
    """Return the format of vectors [length]: little-endian float32 without a header."""

    def decode(payload: bytes) -> npt.NDArray[np.float32] | None:
        return np.frombuffer(payload, dtype="<f4") if len(payload) == 4 * length else None

    return PayloadFormat(lambda vector: vector.astype("<f4").tobytes(), decode)


def json_format() -> PayloadFormat[Any]:
    """Return the format of JSON values other than null: UTF-8 text."""
    return PayloadFormat(_bytes_of_json, json.loads)


@dataclass(frozen=True)
class CachedComputation(Generic[Item, Value]):
    """A computation on items, whose results are read from a cache where they are stored, and else computed and stored.

    Every distinct key is read or computed once, however many items share it. Each result is stored as soon as it is
    computed, so an interrupted computation continues where it stopped. A progress bar shows the time that remains.

    Attributes:
        cache: where the results are stored.
        key: item → key of its entry.
        compute: K items that are not stored → (position among the K items, value) of each, in any order. No value is
            None.
        format: how a value is stored.
        description: what is computed, for the progress bar.
        unit: what is counted by the progress bar.
    """

    cache: Cache
    key: Callable[[Item], str]
    compute: Callable[[Sequence[Item]], Generator[tuple[int, Value], None, None]]
    format: PayloadFormat[Value]
    description: str
    unit: str = "clip"

    def each(self, items: Sequence[Item]) -> Generator[tuple[int, Value], None, None]:
        """Yield (position in `items`, value): the stored values first, then the others as they are computed.

        Raises:
            CacheError: if the cache cannot be written.
        """
        positions = self._positions(items)
        missing = []
        for key in self._progress(positions, f"{self.description} from the cache"):
            value = self._read(key)
            if value is None:
                missing.append(key)
            else:
                yield from ((position, value) for position in positions[key])
        with contextlib.closing(self._computed(missing, items, positions)) as results:
            for key, value in results:
                yield from ((position, value) for position in positions[key])

    def values(self, items: Sequence[Item]) -> list[Value]:
        """Return the value of each item, in order.

        Raises:
            CacheError: as in `each`.
        """
        results: dict[int, Value] = {}
        with contextlib.closing(self.each(items)) as pairs:
            results.update(pairs)
        return [results[position] for position in range(len(items))]

    def fill(self, items: Sequence[Item]) -> int:
        """Compute what is not stored without keeping it in memory; return how many results were computed.

        Raises:
            CacheError: as in `each`.
        """
        positions = self._positions(items)
        keys = self._progress(positions, f"{self.description} from the cache")
        missing = [key for key in keys if self._read(key) is None]
        with contextlib.closing(self._computed(missing, items, positions)) as results:
            return sum(1 for _ in results)

    def stream(self, items: Sequence[Item]) -> Iterator[Value]:
        """Yield the value of each item, in order, after all were stored: only one value at a time is in memory.

        Raises:
            CacheError: as in `each`, or if an entry was removed meanwhile.
        """
        self.fill(items)
        for item in items:
            value = self.read(item)
            if value is None:
                raise CacheError(
                    f"{self.cache.folder}: an entry of this run ({self.description}) was removed from the cache; "
                    "do not empty the cache during a run, and run the same command again"
                )
            yield value

    def read(self, item: Item) -> Value | None:
        """Return the stored value, or None if there is none; nothing is computed."""
        return self._read(self.key(item))

    def _positions(self, items: Sequence[Item]) -> dict[str, list[int]]:
        """Key → positions of the items that have it."""
        positions: dict[str, list[int]] = {}
        for position, item in enumerate(items):
            positions.setdefault(self.key(item), []).append(position)
        return positions

    def _read(self, key: str) -> Value | None:
        payload = self.cache.read(key)
        if payload is None:
            return None
        try:
            return self.format.decode(payload)
        except ValueError:
            return None

    def _computed(
        self, missing: Sequence[str], items: Sequence[Item], positions: dict[str, list[int]]
    ) -> Generator[tuple[str, Value], None, None]:
        """(key, value) of every missing key, after it was stored."""
        if not missing:
            return
        absent = set(missing)
        with (
            contextlib.closing(self.compute([items[positions[key][0]] for key in missing])) as results,
            tqdm(total=len(missing), **self._settings(self.description)) as bar,
        ):
            for number, value in results:
                key = missing[number]
                self.cache.write(key, self.format.encode(value))
                absent.discard(key)
                bar.update()
                yield key, value
        if absent:
            raise RuntimeError(f"{self.description}: {len(absent)} of {len(missing)} results were not computed")

    def _progress(self, keys: Iterable[str], description: str) -> Iterable[str]:
        return tqdm(keys, **self._settings(description))

    def _settings(self, description: str) -> dict[str, Any]:
        """`disable=None` shows no bar where the output is not a terminal."""
        return {
            "desc": description,
            "unit": self.unit,
            "disable": None,
            "delay": PROGRESS_AFTER_S,
            "leave": False,
        }


def _array_of(payload: bytes) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = np.load(io.BytesIO(payload), allow_pickle=False)
    return array


def _bytes_of_array(array: npt.NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _bytes_of_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _link(temporary: Path, path: Path) -> None:
    """Move into place unless there is an entry; on a file system without hard links, the last writer's entry stays."""
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno not in NO_HARD_LINKS:
            raise
        if not path.exists():
            temporary.replace(path)


def _digest(payload: bytes) -> bytes:
    return hashlib.blake2b(payload, digest_size=DIGEST_BYTES).digest()
