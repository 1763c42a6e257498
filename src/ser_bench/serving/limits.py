"""What one request may cost: limits of size, length, time and memory, and the errors that a client is sent."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

MIN_RATE_HZ, MAX_RATE_HZ = 4_000, 768_000
"""Sampling rates of recorders; resampling from others costs memory and gives no speech."""
MAX_UPLOAD_SAMPLES = 1 << 25
"""Largest number of samples of all channels of one clip: 128 MiB of float32, or three minutes of stereo at 96 kHz."""
DISCARDED_BODIES = 16
"""A body that is too large is received to its end and discarded, up to so many times the limit. A client that still
sends when the connection is closed may not read the answer."""
MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Limits of a server.

    Attributes:
        body_bytes: largest body of a request, bytes.
        duration_s: longest clip, seconds; 0: that of the corpus on which the run was trained.
        body_timeout_s: longest time in which a body must arrive, seconds.
        header_timeout_s: longest time in which the headers of a request must arrive, seconds.
        deadline_s: longest time from the end of the body to the answer, seconds.
        waiting: largest number of requests that are decoded or wait for a predictor.
        batch: largest number of clips that are predicted together.
        batch_wait_s: longest time that a clip waits for others that are being decoded, seconds.
        memory_bytes: memory of all bodies and samples that are held, bytes.
        streams: largest number of streams at the same time.
        stream_idle_s: longest time without a message in a stream, seconds.
    """

    body_bytes: int = 16 * MIB
    duration_s: float = 0.0
    body_timeout_s: float = 20.0
    header_timeout_s: float = 10.0
    deadline_s: float = 30.0
    waiting: int = 128
    batch: int = 16
    batch_wait_s: float = 0.004
    memory_bytes: int = 512 * MIB
    streams: int = 4
    stream_idle_s: float = 30.0


class RequestRefusedError(Exception):
    """A request that is answered with an error.

    Args:
        status: status of HTTP.
        code: word that names the kind of error; programs may compare it.
        message: one sentence for people.
        retry_after_s: seconds after which the request may be repeated; None: repeating does not help.
    """

    def __init__(self, status: int, code: str, message: str, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s

    def as_dict(self) -> dict[str, dict[str, str]]:
        """Return the body of the answer."""
        return {"error": {"code": self.code, "message": self.message}}


class MemoryBudget:
    """Bytes that all requests together may hold.

    Args:
        limit: bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def reserved(self) -> Iterator[Reservation]:
        """Give a reservation of 0 bytes, which can grow, and return all of it at the end of the `with` block."""
        reservation = Reservation(self)
        try:
            yield reservation
        finally:
            reservation.close()

    def change(self, by: int) -> None:
        """Take (or return, if negative) bytes.

        Raises:
            RequestRefusedError: 503, nothing is left.
        """
        with self._lock:
            if by > 0 and self.used + by > self.limit:
                raise RequestRefusedError(503, "overloaded", "the memory for requests is in use; try again", 1)
            self.used += by


class Reservation:
    """The part of a `MemoryBudget` that one request holds."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._held = 0
        self._closed = False
        self._lock = threading.Lock()

    def resize(self, count: int) -> None:
        """Hold `count` bytes; nothing after `close`, which a thread that still decodes may not know.

        Raises:
            RequestRefusedError: 503, they are not available.
        """
        with self._lock:
            if not self._closed:
                self._budget.change(count - self._held)
                self._held = count

    def close(self) -> None:
        """Return all bytes."""
        self.resize(0)
        with self._lock:
            self._closed = True


async def read_body(receive: Receive, limits: Limits, memory: Reservation, stated: int | None = None) -> bytes:
    """Receive the body of a request. Its bytes are counted as they arrive.

    Args:
        receive: the function of ASGI that returns the next message.
        limits: of the server.
        memory: grows with the body.
        stated: the length that the client stated, bytes; only used to refuse earlier.

    Raises:
        RequestRefusedError: 413 too large, 408 too slow, 499 the client has closed the connection, 503 no memory is
            left.
    """
    body = bytearray()
    count, refused = 0, False
    most = DISCARDED_BODIES * limits.body_bytes
    if stated is not None and stated > most:
        raise _too_large(limits)
    try:
        async with asyncio.timeout(limits.body_timeout_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise RequestRefusedError(499, "client_gone", "the client closed the connection")
                chunk = message.get("body", b"")
                count += len(chunk)
                if count > limits.body_bytes and not refused:
                    refused = True
                    body = bytearray()
                    memory.resize(0)
                if refused:
                    if count > most or not message.get("more_body", False):
                        raise _too_large(limits)
                    continue
                memory.resize(count)
                body += chunk
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        if refused:
            raise _too_large(limits) from None
        raise RequestRefusedError(
            408, "body_timeout", f"the body did not arrive within {limits.body_timeout_s:g} s"
        ) from None


def _too_large(limits: Limits) -> RequestRefusedError:
    return RequestRefusedError(413, "body_too_large", f"the body has more than {limits.body_bytes:,} bytes")
