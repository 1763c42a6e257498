"""Serve the page on the loopback address, without any request to another host, and keep nothing that was recorded."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterator, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ser_bench import extras
from ser_bench.errors import ConfigError
from ser_bench.webpage.page import COMMAND, build_page
from ser_bench.webpage.page_answers import LoadedRuns
from ser_bench.webpage.page_figures import STYLE

if TYPE_CHECKING:
    from fastapi import FastAPI

HOST = "127.0.0.1"
HOSTS = (HOST, "localhost")
"""Values of the header Host that are answered: a name that an attacker points to this address is not."""
MAX_UPLOAD = "400mb"
SHUTDOWN_S = 2
POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",  # Gradio compiles its templates in the browser
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' data: blob:",
        "worker-src 'self' blob:",
        "frame-ancestors 'none'",
    )
)
"""Content-Security-Policy: the browser refuses every request to another host."""
OFFLINE = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_SSR_MODE": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_TELEMETRY": "1",
}
"""Environment variables that Gradio reads when it is imported."""

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]


class PageGuard:
    """Refuse requests that pages of other websites send, and add the policy and its companions to every response."""

    def __init__(self, app: Callable[[Message, Receive, Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer or pass on one request."""
        if scope["type"] == "http" and not is_own_origin(dict(scope["headers"]).get(b"origin")):
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"requests of other websites are refused\n"})
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    (b"content-security-policy", POLICY.encode()),
                    (b"referrer-policy", b"no-referrer"),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        await self._app(scope, receive, with_headers)


def is_own_origin(origin: bytes | None) -> bool:
    """Return whether the header Origin is that of this page, or missing, as outside browsers and in plain navigation.

    >>> is_own_origin(b"http://127.0.0.1:7860"), is_own_origin(b"https://127.0.0.1.example"), is_own_origin(b"null")
    (True, False, False)
    """
    return origin is None or urlsplit(origin.decode("latin-1")).hostname in HOSTS


def page_application(runs: LoadedRuns, overrides: Sequence[str] = ()) -> FastAPI:
    """Return the ASGI application of the page.

    Raises:
        ConfigError: Gradio is not installed.
    """
    os.environ.update(OFFLINE)
    extras.require("gradio", COMMAND)
    import gradio as gr
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(PageGuard)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(HOSTS))
    # The fonts of the system: those of Gradio's default theme are loaded from elsewhere in some versions.
    theme = gr.themes.Default(
        primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    ).set(
        button_primary_background_fill="*primary_700",  # white text on the default has a contrast of 3 : 1
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_hover_dark="*primary_800",
    )
    gr.mount_gradio_app(
        app, build_page(runs, overrides), path="/", server_name=HOST, footer_links=[], ssr_mode=False, theme=theme,
        css=STYLE, max_file_size=MAX_UPLOAD, show_error=False, pwa=False, mcp_server=False,
    )  # fmt: skip
    return app


@contextlib.contextmanager
def private_folder() -> Iterator[str]:
    """Give Gradio a folder for recordings that only this user can read, and delete it at the end.

    A request to terminate (SIGTERM) ends the program in the same way as Ctrl-C, so that the folder is deleted then too.
    """
    before = os.environ.get("GRADIO_TEMP_DIR")
    with tempfile.TemporaryDirectory(prefix="ser_bench_app_", ignore_cleanup_errors=True) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        try:
            yield folder
        finally:
            if before is None:
                del os.environ["GRADIO_TEMP_DIR"]
            else:
                os.environ["GRADIO_TEMP_DIR"] = before


def bound_socket(port: int) -> socket.socket:
    """Return a socket at this port of the loopback address; 0: any free port.

    Raises:
        ConfigError: the port is taken, is not a port number, or may not be used.
    """
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((HOST, port))
        bound.listen()  # a browser that is opened early waits
    except (OSError, OverflowError) as error:
        bound.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"port {port} cannot be used ({reason}); choose another one with --port") from error
    return bound


def serve_page(runs: LoadedRuns, port: int, overrides: Sequence[str] = ()) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        ConfigError: Gradio is not installed, or the port cannot be used.
    """
    with private_folder(), contextlib.closing(bound_socket(port)) as bound:
        app = page_application(runs, overrides)
        import uvicorn

        print(f"page     http://{HOST}:{bound.getsockname()[1]}/ (this computer only; Ctrl-C ends it)", flush=True)
        signal.signal(signal.SIGTERM, _end)
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, timeout_graceful_shutdown=SHUTDOWN_S, server_header=False
        )
        uvicorn.Server(config).run(sockets=[bound])


def _end(signum: int, frame: object) -> None:
    raise SystemExit(128 + signum)
