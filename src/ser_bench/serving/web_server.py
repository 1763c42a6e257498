"""uvicorn with a socket of its own and a limit on the time of headers; it answers accepted requests before it ends."""

from __future__ import annotations

import asyncio
import math
import signal
import socket
from collections.abc import Callable
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ser_bench.errors import ConfigError
from ser_bench.serving.limits import Limits
from ser_bench.serving.request_guard import App
from ser_bench.serving.stream_endpoint import MAX_MESSAGE_BYTES

BACKLOG = 512
MAX_CONNECTIONS = 512
"""Connections at the same time; uvicorn answers 503 to others."""


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address; it does not listen yet, so that clients are refused until then.

    Raises:
        ConfigError: the address is not one of this machine, or the port is in use or not allowed.
    """
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        bound = socket.socket(family, kind, protocol)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"--host={host} --port={port}: no such address ({reason})") from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise ConfigError(f"--host={host} --port={port}: {error.strerror}; choose another with --port") from None
    return bound


def address_of(bound: socket.socket) -> str:
    """Return the URL of a bound socket."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(app: App, bound: socket.socket, limits: Limits, when_listening: Callable[[], None]) -> None:
    """Serve until SIGTERM or Ctrl-C; requests that were accepted before are answered.

    Args:
        app: the application.
        bound: the socket of `bind`.
        limits: times and sizes.
        when_listening: called once, when a client can connect.

    Raises:
        KeyboardInterrupt: after Ctrl-C.
    """
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)  # uvicorn raises it again at the end
    try:
        make_server(app, limits, when_listening).run(sockets=[bound])
    finally:
        signal.signal(signal.SIGTERM, before)


class AnnouncingServer(uvicorn.Server):
    """A server that calls a function as soon as clients can connect; who is told the address earlier is refused."""

    def __init__(self, config: uvicorn.Config, when_listening: Callable[[], None]) -> None:
        """Store what to call."""
        super().__init__(config)
        self._when_listening = when_listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then call the function."""
        await super().startup(sockets)
        if self.started:
            self._when_listening()


def make_server(app: App, limits: Limits, when_listening: Callable[[], None] = lambda: None) -> uvicorn.Server:
    """Return the server of an application; it logs nothing of a request."""
    return AnnouncingServer(
        uvicorn.Config(
            app,
            http=protocol_with(limits.header_timeout_s),
            ws_max_size=MAX_MESSAGE_BYTES,
            ws_per_message_deflate=False,  # a small compressed message can become a large one
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=math.ceil(limits.body_timeout_s + limits.deadline_s) + 1,
            backlog=BACKLOG,
        ),
        when_listening,
    )


def protocol_with(header_timeout_s: float) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol, with a limit on the time in which the headers of a request must arrive.

    uvicorn has none: a client that opens connections and sends a byte now and then would hold all of them.
    """

    class ProtocolWithHeaderTimeout(H11Protocol):
        _header_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait_for_headers()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is h11.IDLE:
                self._wait_for_headers()
            else:
                self._stop_waiting()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def _wait_for_headers(self) -> None:
            if self._header_timer is None:
                self._header_timer = self.loop.call_later(header_timeout_s, self._refuse)

        def _stop_waiting(self) -> None:
            if self._header_timer is not None:
                self._header_timer.cancel()
                self._header_timer = None

        def _refuse(self) -> None:
            if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
                self.transport.close()

    return ProtocolWithHeaderTimeout
