"""Checked HTTP downloads with retries.

A file is streamed to a temporary name, checked, and renamed, so that the target is either complete or absent. A cut
connection, the statuses 429 and 5xx, a very slow transfer, and wrong content are retried, with growing pauses and a
limited number of attempts. Errors that a retry cannot solve (such as 403 and 404) are raised at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TypeVar

import httpx

from ser_bench.errors import CorpusError, DownloadError
from ser_bench.proxies import explain_client_error
from ser_bench.retry_after import retry_after_s

T = TypeVar("T")

MAX_DOWNLOAD_BYTES = 16 << 30
"""Limit of a file whose size is unknown: 16 GiB, more than any corpus."""
MAX_BODY_BYTES = 64 << 20
"""Limit of an answer that is read into memory, uncompressed: 64 MiB. The list of files of TESS has 2 MB."""
RETRIED_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class TransferLimits:
    """Retry and timeout settings.

    Attributes:
        attempts: maximum number of requests for one file.
        pause_s: pause before the second attempt, seconds. It is doubled for each further attempt, and multiplied by a
            random factor from 0.5 to 1.5.
        max_pause_s: longest pause, seconds. A download fails if the host asks for a longer one by `Retry-After`.
        timeout_s: the connection counts as cut if no byte arrives for so long, seconds.
        min_bytes_per_s: the connection counts as cut if the average rate is lower after `timeout_s`.
    """

    attempts: int = 5
    pause_s: float = 1.0
    max_pause_s: float = 60.0
    timeout_s: float = 30.0
    min_bytes_per_s: float = 2000.0


@dataclass(frozen=True, slots=True)
class ExpectedFile:
    """Size and checksum that a file must have.

    Attributes:
        bytes: size; 0 if it is unknown.
        checksum: "sha256:…" or "md5:…", hexadecimal; "" if it is unknown.
    """

    bytes: int = 0
    checksum: str = ""

    def matches(self, path: Path) -> bool:
        """Return True if the file is a regular one with this size and checksum."""
        try:
            if not path.is_file():  # a named pipe would wait for a writer without end
                return False
            if self.bytes and path.stat().st_size != self.bytes:
                return False
            return not self.checksum or checksum_of(path, self.checksum.partition(":")[0]) == self.checksum
        except OSError:
            return False


class _TransientError(Exception):
    """An error that a retry may solve."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class _WrongContentError(_TransientError):
    """A file arrived completely, but its size or checksum is wrong."""


@dataclass(frozen=True)
class Transfer:
    """A pool of HTTP connections with its retry and timeout settings. Threads may share it.

    Attributes:
        client: the connections.
        limits: the settings.
    """

    client: httpx.Client
    limits: TransferLimits = field(default_factory=TransferLimits)

    @classmethod
    def open(cls, limits: TransferLimits | None = None, connections: int = 8) -> Transfer:
        """Return a pool that follows redirects.

        Raises:
            DownloadError: if a proxy in the environment cannot be used.
        """
        limits = limits or TransferLimits()
        pool = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        try:
            client = httpx.Client(follow_redirects=True, timeout=limits.timeout_s, limits=pool)
        except (ImportError, ValueError) as error:
            raise DownloadError(explain_client_error(error)) from None
        return cls(client, limits)

    def json(self, method: str, url: str, headers: Mapping[str, str], body: object = None) -> object:
        """Send a request and return the JSON value of the response.

        Raises:
            DownloadError: if the host refuses, if the response is not JSON, or if every attempt failed.
        """

        def attempt() -> object:
            with self.client.stream(method, url, headers=dict(headers), json=body) as response:
                text = _body(response)
            _check_status(response, text)
            try:
                value: object = json.loads(text)
                return value
            except ValueError as error:
                raise DownloadError(f"{url}: the response is not JSON") from error

        return self._retry(url, attempt)

    def file(
        self,
        url: str,
        target: Path,
        expected: ExpectedFile,
        headers: Mapping[str, str] | None = None,
        on_bytes: Callable[[int], object] = lambda _n: None,
    ) -> None:
        """Download a file. The target is written only if the download has the expected size and checksum.

        Args:
            url: address of the file.
            target: path to write; its folder is created.
            expected: expected size and checksum.
            headers: headers of the request, for example the authorisation from a Git LFS server.
            on_bytes: called with the size of each chunk, for a progress bar.

        Raises:
            DownloadError: if the host refuses, or if every attempt failed.
            CorpusError: if the target cannot be written.
        """

        def attempt() -> None:
            with atomic_write(target) as file:
                self._stream(url, file, expected, headers or {}, on_bytes)

        self._retry(url, attempt)

    def _stream(
        self,
        url: str,
        file: IO[bytes],
        expected: ExpectedFile,
        headers: Mapping[str, str],
        on_bytes: Callable[[int], object],
    ) -> None:
        digest = hashlib.new(expected.checksum.partition(":")[0] or "sha256")
        size, limit, start = 0, expected.bytes or MAX_DOWNLOAD_BYTES, time.monotonic()
        headers = {"Accept-Encoding": "identity", **headers}  # size and checksum are those of the uncompressed file
        with self.client.stream("GET", url, headers=headers) as response:
            if response.status_code != httpx.codes.OK:
                _check_status(response, _body(response))
            for chunk in response.iter_bytes():  # without a fixed chunk size, so that a slow transfer is noticed
                size += len(chunk)
                if size > limit:
                    raise _WrongContentError(f"more than {limit:,} bytes were sent")
                digest.update(chunk)
                file.write(chunk)
                on_bytes(len(chunk))
                elapsed = time.monotonic() - start
                if elapsed > self.limits.timeout_s + size / self.limits.min_bytes_per_s:
                    raise _TransientError(f"the transfer is too slow ({size:,} bytes in {elapsed:.0f} s)")
        if expected.bytes and size != expected.bytes:
            raise _WrongContentError(f"received {size:,} bytes instead of {expected.bytes:,}")
        if expected.checksum and f"{digest.name}:{digest.hexdigest()}" != expected.checksum:
            raise _WrongContentError(f"the file does not have the checksum {expected.checksum}")

    def _retry(self, url: str, attempt: Callable[[], T]) -> T:
        pause_s = self.limits.pause_s
        reason, lasting = "", 0
        for number in range(1, self.limits.attempts + 1):
            try:
                return attempt()
            except httpx.TransportError as error:
                reason, requested_s = str(error) or type(error).__name__, None
                lasting += isinstance(error, httpx.ConnectError)
            except _TransientError as error:
                reason, requested_s = str(error), error.wait_s
                lasting += isinstance(error, _WrongContentError)
            except httpx.HTTPError as error:
                raise DownloadError(f"{url}: {error}") from error
            if lasting > 1:
                break  # after two failed connections or two wrong files, further attempts are unlikely to succeed
            if requested_s is not None and requested_s > self.limits.max_pause_s:
                raise DownloadError(f"{url}: {reason}; the host asks to wait {requested_s:,.0f} s")
            if number < self.limits.attempts:
                time.sleep(pause_s * random.uniform(0.5, 1.5) if requested_s is None else requested_s)
                pause_s = min(2 * pause_s, self.limits.max_pause_s)
        raise DownloadError(f"{url}: {reason} ({number} attempts)")


@contextlib.contextmanager
def atomic_write(target: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file beside `target`; rename it to `target` if the block succeeds, else delete it.

    Raises:
        CorpusError: if the folder cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.parent / f".half-{uuid.uuid4().hex}"
        try:
            with temporary.open("xb") as file:
                yield file
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise CorpusError(
            f"{target}: cannot be written ({error.strerror}); free some space, or choose another folder with --root"
        ) from error


def plain_file_name(name: str) -> str:
    """Return a name from a list of files, if it is that of a file in the folder of the list.

    Raises:
        ValueError: if the name is empty, is a path, or contains a control character.
    """
    if name in ("", ".", "..") or re.search(r"[/\\\x00-\x1f]", name):
        raise ValueError(f"{name!r} is not the name of a file in this folder")
    return name


def target_inside(root: Path, *parts: str) -> Path:
    """Return the path of a file to write below a folder.

    Raises:
        CorpusError: if the file would be written outside the folder, because of a part such as ".." or of a link.
    """
    target = root.joinpath(*parts)
    folder = target.parent.resolve()
    if not folder.is_relative_to(root.resolve()):
        raise CorpusError(
            f"{target}: would be written outside the folder of the corpus, to {folder}; remove the link to that "
            "folder, or give the folder itself with --root"
        )
    return target


def checksum_of(path: Path, algorithm: str) -> str:
    """Return the checksum of a file as "algorithm:hexadecimal"."""
    with path.open("rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"


def _body(response: httpx.Response) -> str:
    """Read the body of a response, uncompressed, up to `MAX_BODY_BYTES`. The rest of an error message is left out.

    Raises:
        DownloadError: if the body of a successful response is longer.
    """
    content = bytearray()
    for chunk in response.iter_bytes():
        content += chunk
        if len(content) > MAX_BODY_BYTES:
            if response.is_success:
                raise DownloadError(f"{response.url}: more than {MAX_BODY_BYTES:,} bytes were sent")
            break
    return content[:MAX_BODY_BYTES].decode(errors="replace")


def _check_status(response: httpx.Response, body: str) -> None:
    """Raise _TransientError or DownloadError if the status of a response is an error."""
    if response.is_success:
        return
    message = _error_message(body)
    reason = f"HTTP {response.status_code} {response.reason_phrase}" + (f": {message}" if message else "")
    if response.status_code in RETRIED_STATUSES and "quota" not in message.lower():
        raise _TransientError(reason, retry_after_s(response.headers))
    raise DownloadError(f"{response.url}: {reason}")


def _error_message(body: str) -> str:
    """Return the field `message` of a JSON body, else the first 200 characters of the body."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        body = str(json.loads(body)["message"])
    return " ".join(body.split())[:200]
