"""Results on disk, by key: what was computed once from the same bytes with the same parameters is read back.

One file an entry: the BLAKE2b digest of the payload, then the payload. An entry is written to a temporary name and
moved into place, so that two processes may fill the same cache and a killed one leaves nothing half-written that
counts; an entry whose digest does not fit is removed and made again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ser_bench.errors import CacheError
from ser_bench.types import digest_of

DIGEST_BYTES = 16
NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EXDEV)


class Cache:
    """A folder of entries, two levels deep. Keys come from `Cache.key`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @staticmethod
    def key(**parts: Any) -> str:
        """Hexadecimal key of everything that decides the result (content digest, parameters, version)."""
        return digest_of(parts)

    def read(self, key: str) -> bytes | None:
        """The payload, or None where it is absent or damaged."""
        path = self._path(key)
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
            CacheError: the folder cannot be written (full disk, read-only).
        """
        self._place(key, payload, Path.replace)

    def write_first(self, key: str, payload: bytes) -> bytes:
        """Store the payload unless another process was first; return what is stored, whoever wrote it.

        For what is not the same when it is computed again: all who ask for the key then go on with one value.

        Raises:
            CacheError: as `write`.
        """
        self._place(key, payload, _link)
        stored = self.read(key)
        if stored is not None:
            return stored
        self.write(key, payload)  # the entry that stood in the way was damaged, and `read` has removed it
        return payload

    def _place(self, key: str, payload: bytes, move: Callable[[Path, Path], object]) -> None:
        path = self._path(key)
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
        """The array, or None where it is absent or damaged; never unpickles."""
        payload = self.read(key)
        return None if payload is None else np.load(io.BytesIO(payload), allow_pickle=False)

    def write_array(self, key: str, array: npt.NDArray[Any]) -> None:
        """Store a numeric array."""
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        self.write(key, buffer.getvalue())

    def read_json(self, key: str) -> Any | None:
        """The JSON value, or None where it is absent or damaged."""
        payload = self.read(key)
        return None if payload is None else json.loads(payload)

    def write_json(self, key: str, value: Any) -> None:
        """Store a JSON value."""
        self.write(key, json.dumps(value, ensure_ascii=False).encode())

    def write_first_json(self, key: str, value: Any) -> Any:
        """As `write_first`, for a JSON value."""
        return json.loads(self.write_first(key, json.dumps(value, ensure_ascii=False).encode()))

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / key[2:]


def _link(half: Path, path: Path) -> None:
    """Move into place unless something is there; a file system without hard links gets the last writer's entry."""
    try:
        path.hardlink_to(half)
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno not in NO_HARD_LINKS:
            raise
        if not path.exists():
            half.replace(path)


def _digest(payload: bytes) -> bytes:
    return hashlib.blake2b(payload, digest_size=DIGEST_BYTES).digest()
