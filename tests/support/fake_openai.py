"""A chat-completions server on loopback with prepared replies and faults."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """One HTTP response."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    cut: bool = False
    """Announce more bytes than are sent, then close the connection."""
    body_delay_s: float = 0.0
    """Seconds between the headers and the first byte of the body."""
    drip_s: float = 0.0
    """Seconds between one byte of the body and the next."""


def completion(
    content: str | None, finish: str = "stop", refusal: str | None = None, logprobs: list[dict[str, Any]] | None = None
) -> Reply:
    """Return a well-formed chat completion with 100 prompt tokens and 10 answer tokens."""
    choice = {
        "index": 0,
        "finish_reason": finish,
        "message": {"role": "assistant", "content": content, "refusal": refusal},
        "logprobs": {"content": logprobs} if logprobs is not None else None,
    }
    return Reply(_chat([choice]))


def label(name: str) -> Reply:
    """Return a well-formed answer."""
    return completion(json.dumps({"emotion": name}))


def with_usage(reply: Reply, usage: Any) -> Reply:
    """Return the reply with another `usage`; None: without one."""
    body = {name: value for name, value in reply.body.items() if name != "usage"}
    return replace(reply, body=body if usage is None else body | {"usage": usage})


def no_choices() -> Reply:
    """Return a completion without choices."""
    return Reply(_chat([]))


def failed_choice(message: str) -> Reply:
    """Return status 200 with an error in place of the answer, as routers of several services do."""
    error = {"message": message, "code": 502}
    choice = {"index": 0, "finish_reason": "error", "error": error, "message": {"role": "assistant", "content": ""}}
    return Reply(_chat([choice]))


def error(status: int, message: str, code: str | None = None, headers: dict[str, str] | None = None) -> Reply:
    """Return an error in OpenAI's format."""
    return Reply({"error": {"message": message, "type": code or "error", "code": code}}, status, headers or {})


def _chat(choices: list[dict[str, Any]]) -> dict[str, Any]:
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    return {
        "id": "c", "object": "chat.completion", "created": 0, "model": "fake", "choices": choices, "usage": usage,
    }  # fmt: skip


class FakeOpenAI:
    """Gives the queued replies first, then `otherwise(request body)`; records the requests."""

    def __init__(self, otherwise: Callable[[dict[str, Any]], Reply]) -> None:
        self.queue: deque[Reply] = deque()
        self.otherwise = otherwise
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.times: list[float] = []
        self.under_way = 0
        self.most_under_way = 0
        self.lock = threading.Lock()
        self.base_url = ""


@contextmanager
def serve(otherwise: Callable[[dict[str, Any]], Reply] | None = None) -> Iterator[FakeOpenAI]:
    """Run a server for a `with` block; `base_url` is its address."""
    fake = FakeOpenAI(otherwise or (lambda body: label("happy")))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with fake.lock:
                fake.asked.append(body)
                fake.paths.append(self.path)
                fake.headers.append({k.lower(): v for k, v in self.headers.items()})
                fake.times.append(time.monotonic())
                fake.under_way += 1
                fake.most_under_way = max(fake.most_under_way, fake.under_way)
                queued = fake.queue.popleft() if fake.queue else None
            try:
                reply = queued or fake.otherwise(body)
                time.sleep(reply.delay_s)
                self.send(reply)
            except OSError:
                self.close_connection = True  # the client closed the connection
            finally:
                with fake.lock:
                    fake.under_way -= 1

        def send(self, reply: Reply) -> None:
            raw = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in ({"content-type": "application/json"} | reply.headers).items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(raw) + (100 if reply.cut else 0)))
            self.end_headers()
            time.sleep(reply.body_delay_s)
            for piece in [raw] if not reply.drip_s else [raw[i : i + 1] for i in range(len(raw))]:
                self.wfile.write(piece)
                time.sleep(reply.drip_s)
            if reply.cut:
                self.close_connection = True

        def log_message(self, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Ignore a client that was killed between two requests."""
            if not isinstance(sys.exception(), ConnectionError):
                super().handle_error(request, client_address)

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    fake.base_url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
