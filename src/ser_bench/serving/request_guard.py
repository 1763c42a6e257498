"""Checks of every request before its body is read: host, origin and token; and the form of every error."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from ser_bench.redaction import register_secret
from ser_bench.serving.limits import RequestRefusedError
from ser_bench.serving.server_metrics import ServerMetrics

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN_PATHS = ("/health", "/health/live")
"""Paths that need no token: they say nothing but that the server runs."""
LOOPBACK_NAMES = ("localhost",)
SAFE_METHODS = ("GET", "HEAD")
POLICY_VIOLATION, TRY_AGAIN_LATER, INTERNAL_ERROR = 1008, 1013, 1011
"""Codes with which a WebSocket is closed that is refused, or whose application failed."""
INTERNAL = RequestRefusedError(500, "internal", "the server failed; its log says why")
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"referrer-policy", b"no-referrer"),
)


def is_loopback_host(host: str) -> bool:
    """Return whether a name or address of a host is this machine only.

    >>> is_loopback_host("127.0.0.1"), is_loopback_host("[::1]"), is_loopback_host("0.0.0.0")
    (True, True, False)
    """
    name = host.strip("[]").rstrip(".").lower()
    if name in LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class TokenCheck:
    """Compares tokens in constant time; the token itself is not kept.

    Args:
        token: the secret that clients send as `Authorization: Bearer TOKEN`.
    """

    def __init__(self, token: str) -> None:
        register_secret(token)
        self._digest = hashlib.sha256(token.encode()).digest()

    def accepts(self, given: str) -> bool:
        """Return whether it is the token. Both are hashed before, so that the time does not tell the length either."""
        digest = hashlib.sha256(given.encode("utf-8", "surrogateescape")).digest()
        return hmac.compare_digest(digest, self._digest)

    def accepts_headers(self, headers: Mapping[str, str]) -> bool:
        """Return whether the headers of a request carry the token."""
        scheme, _, given = headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and self.accepts(given.strip())


class RequestGuard:
    """The outermost part of the application: refuses requests, turns errors into JSON, and counts.

    - The header Host must name this machine, if the server is bound to it. A page of another site whose name was made
      to resolve to 127.0.0.1 (DNS rebinding) sends its own name.
    - A browser sends the header Origin with requests that a page of another site starts. They are refused, also for
      WebSockets, for which browsers do not ask the server.
    - The token is compared before anything else is read.

    Args:
        app: the application.
        metrics: counts requests and errors.
        paths: paths that exist; others are counted together.
        token: None if no token is needed.
        hosts: names that the header Host may have; () for any.
        origins: origins of other sites that may ask.
    """

    def __init__(
        self,
        app: App,
        metrics: ServerMetrics,
        paths: tuple[str, ...],
        token: TokenCheck | None,
        hosts: tuple[str, ...],
        origins: tuple[str, ...],
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._paths = frozenset(paths)
        self._token = token
        self._hosts = frozenset(hosts)
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in self._paths else "other"
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        started_s, status, complete = time.perf_counter(), 0, False

        async def sending(message: MutableMapping[str, Any]) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)
            complete = message["type"] == "http.response.body" and not message.get("more_body", False)

        try:
            self._check(scope, headers)
            await self._app(scope, receive, sending)
        except RequestRefusedError as error:
            self.count_error(error.code)
            if scope["type"] == "websocket":
                await receive()  # websocket.connect
                await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": error.code})
            else:
                await send_error(sending, error)
        except Exception:
            self.count_error("internal")
            log.exception("%s: a request failed", path)
            if scope["type"] == "http" and not status:
                await send_error(sending, INTERNAL)
            elif scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": INTERNAL_ERROR, "reason": INTERNAL.code})
            elif not complete:
                raise  # the answer has begun, and the connection must be closed
        if scope["type"] == "http":
            self._metrics.requests.labels(path, str(status)).inc()
            self._metrics.seconds.labels(path).observe(time.perf_counter() - started_s)

    def count_error(self, code: str) -> None:
        """Count an error."""
        self._metrics.errors.labels(code).inc()

    def _check(self, scope: Scope, headers: Mapping[str, str]) -> None:
        host = headers.get("host", "")
        if self._hosts and _host_name(host) not in self._hosts:
            raise RequestRefusedError(421, "host", "the header Host does not name this server")
        origin = headers.get("origin", "")
        unsafe = scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS
        if unsafe and origin not in self._origins:
            foreign = bool(origin) and urlsplit(origin).netloc != host
            if foreign or headers.get("sec-fetch-site", "") in ("cross-site", "same-site"):
                raise RequestRefusedError(403, "origin", "requests from pages of other sites are refused")
        if self._token is None or scope["path"] in OPEN_PATHS:
            return
        if scope["type"] == "websocket" and "authorization" not in headers:
            return  # browsers cannot send the header: the first message carries the token
        if not (scope.get("method") == "OPTIONS" and origin in self._origins) and not self._token.accepts_headers(
            headers
        ):
            raise RequestRefusedError(401, "token", "send the token: Authorization: Bearer TOKEN")


def _host_name(host: str) -> str:
    """Return the name of a header Host, without the port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


async def send_error(send: Send, error: RequestRefusedError) -> None:
    """Send an error as JSON. The connection is closed where a body may not have been read to its end."""
    body = json.dumps(error.as_dict()).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if error.retry_after_s is not None:
        headers.append((b"retry-after", str(error.retry_after_s).encode()))
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if error.status in (408, 413):
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
