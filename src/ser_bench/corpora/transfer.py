"""Downloads that are whole or absent: streamed to a temporary name, checked, moved into place.

A host may cut a connection, answer 429 or 503 with or without `Retry-After`, trickle, or send wrong bytes. Each of
these is tried again, with growing pauses and a bound; what another attempt cannot mend (404, 403) is given up at once.
"""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import json
import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TypeVar

import httpx

from ser_bench.errors import CorpusError, DownloadError

T = TypeVar("T")

TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a host is borne with.

    Attributes:
        attempts: requests for one thing before it is given up.
        pause_s: before the second attempt; doubled each time, give or take half (jitter).
        longest_pause_s: a host that asks for more by `Retry-After` is given up.
        silence_s: without a byte for so long, the connection counts as cut.
        slowest_bytes_per_s: on average, once `silence_s` has passed; a slower transfer counts as cut.
    """

    attempts: int = 5
    pause_s: float = 1.0
    longest_pause_s: float = 60.0
    silence_s: float = 30.0
    slowest_bytes_per_s: float = 2000.0


@dataclass(frozen=True, slots=True)
class Expected:
    """What is known of a file beforehand; zero or "" where it is not.

    Attributes:
        bytes: size.
        checksum: "sha256:…" or "md5:…", hexadecimal.
    """

    bytes: int = 0
    checksum: str = ""

    def matches(self, path: Path) -> bool:
        """True where the file is there with this size and checksum."""
        try:
            if self.bytes and path.stat().st_size != self.bytes:
                return False
            return not self.checksum or checksum_of(path, self.checksum.partition(":")[0]) == self.checksum
        except OSError:
            return False


class _AgainError(Exception):
    """An attempt failed in a way that another may mend."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class _WrongBytesError(_AgainError):
    """A whole file came, and it is another one."""


@dataclass(frozen=True)
class Transfer:
    """One connection pool with its patience; safe to share among threads."""

    client: httpx.Client
    patience: Patience = field(default_factory=Patience)

    @classmethod
    def open(cls, patience: Patience | None = None, connections: int = 8) -> Transfer:
        """A pool that follows redirects and counts silence as a cut connection."""
        patience = patience or Patience()
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        return cls(httpx.Client(follow_redirects=True, timeout=patience.silence_s, limits=limits), patience)

    def json(self, method: str, url: str, headers: Mapping[str, str], body: object = None) -> object:
        """The JSON answer to one request.

        Raises:
            DownloadError: the host refuses, or every attempt failed.
        """

        def attempt() -> object:
            response = self.client.request(method, url, headers=dict(headers), json=body)
            _refuse(response, response.text)
            try:
                return response.json()
            except ValueError as error:
                raise DownloadError(f"{url}: the answer is not JSON") from error

        return self._persist(url, attempt)

    def file(
        self,
        url: str,
        target: Path,
        expected: Expected,
        headers: Mapping[str, str] | None = None,
        on_bytes: Callable[[int], object] = lambda _n: None,
    ) -> None:
        """Download to `target`, which appears only when it is whole and has the expected size and checksum.

        Args:
            url: where from.
            target: where to; its folder is made.
            expected: what it must be.
            headers: sent along, such as the authorisation that a Git LFS server hands out.
            on_bytes: told of each chunk's size, for a progress bar.

        Raises:
            DownloadError: the host refuses, or every attempt failed.
            CorpusError: the target cannot be written.
        """

        def attempt() -> None:
            with half_written(target) as file:
                self._stream(url, file, expected, headers or {}, on_bytes)

        self._persist(url, attempt)

    def _stream(
        self,
        url: str,
        file: IO[bytes],
        expected: Expected,
        headers: Mapping[str, str],
        on_bytes: Callable[[int], object],
    ) -> None:
        digest = hashlib.new(expected.checksum.partition(":")[0] or "sha256")
        size, start = 0, time.monotonic()
        whole = {"Accept-Encoding": "identity", **headers}  # sizes and checksums are those of the file itself
        with self.client.stream("GET", url, headers=whole) as response:
            if response.status_code != httpx.codes.OK:
                _refuse(response, response.read().decode(errors="replace"))
            for chunk in response.iter_bytes():  # as they come, so that a trickle is seen
                digest.update(chunk)
                file.write(chunk)
                size += len(chunk)
                on_bytes(len(chunk))
                elapsed = time.monotonic() - start
                if elapsed > self.patience.silence_s + size / self.patience.slowest_bytes_per_s:
                    raise _AgainError(f"{size:,} bytes in {elapsed:.0f} s is too slow")
        if expected.bytes and size != expected.bytes:
            raise _WrongBytesError(f"{size:,} bytes came, {expected.bytes:,} were expected")
        if expected.checksum and f"{digest.name}:{digest.hexdigest()}" != expected.checksum:
            raise _WrongBytesError(f"what came does not have the checksum {expected.checksum}")

    def _persist(self, url: str, attempt: Callable[[], T]) -> T:
        pause_s = self.patience.pause_s
        reason, hopeless = "", 0
        for number in range(1, self.patience.attempts + 1):
            try:
                return attempt()
            except httpx.TransportError as error:
                reason, asked_s = str(error) or type(error).__name__, None
                hopeless += isinstance(error, httpx.ConnectError)
            except _AgainError as error:
                reason, asked_s = str(error), error.wait_s
                hopeless += isinstance(error, _WrongBytesError)
            except httpx.HTTPError as error:
                raise DownloadError(f"{url}: {error}") from error
            if hopeless > 1:
                break  # a host that is not there twice, or sends a wrong file twice, will do so again
            if asked_s is not None and asked_s > self.patience.longest_pause_s:
                raise DownloadError(f"{url}: {reason}; asks to wait {asked_s:,.0f} s")
            if number < self.patience.attempts:
                time.sleep(pause_s * random.uniform(0.5, 1.5) if asked_s is None else asked_s)
                pause_s = min(2 * pause_s, self.patience.longest_pause_s)
        raise DownloadError(f"{url}: {reason} ({number} attempts)")


@contextlib.contextmanager
def half_written(target: Path) -> Iterator[IO[bytes]]:
    """A file under a temporary name beside `target`, moved there when the block ends well, else removed.

    Raises:
        CorpusError: the folder cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        half = target.parent / f".half-{uuid.uuid4().hex}"
        try:
            with half.open("xb") as file:
                yield file
            half.replace(target)
        except BaseException:
            half.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise CorpusError(f"{target}: cannot be written ({error.strerror}); free some space or give --root") from error


def checksum_of(path: Path, algorithm: str) -> str:
    """ "algorithm:hexadecimal" of a file's bytes."""
    with path.open("rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"


def _refuse(response: httpx.Response, body: str) -> None:
    """Raise where the status is not a success: `_AgainError` where waiting may help, else DownloadError."""
    if response.is_success:
        return
    said = _message(body)
    reason = f"HTTP {response.status_code} {response.reason_phrase}" + (f": {said}" if said else "")
    if response.status_code in TRY_AGAIN and "quota" not in said.lower():
        raise _AgainError(reason, _retry_after_s(response.headers.get("retry-after", "")))
    raise DownloadError(f"{response.url}: {reason}")


def _message(body: str) -> str:
    """What a forge says in its JSON, or the beginning of whatever it says."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        body = str(json.loads(body)["message"])
    return " ".join(body.split())[:200]


def _retry_after_s(value: str) -> float | None:
    """Seconds to wait by a `Retry-After` header, which holds seconds or a date; None where it says nothing."""
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return None
