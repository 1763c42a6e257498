"""The server of `ser_bench.serving` in a thread of the test, on a free port of 127.0.0.1."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from ser_bench.serving import web_server
from ser_bench.serving.application import Access, make_application
from ser_bench.serving.limits import Limits
from ser_bench.serving.prediction_service import PredictionService


@dataclass
class LocalServer:
    """A server that runs.

    Attributes:
        url: its address.
        service: what it serves.
        client: asks it.
        server: of uvicorn; `server.should_exit = True` does what SIGTERM does.
        thread: in which it runs.
    """

    url: str
    service: PredictionService
    client: httpx.Client
    server: Any
    thread: threading.Thread

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])


@contextlib.contextmanager
def serving(
    predictors: Sequence[Any], limits: Limits, access: Access | None = None, predict_with_each: Any = None
) -> Iterator[LocalServer]:
    """Serve the predictors during a `with` block."""
    more = {"predict_with_each": predict_with_each} if predict_with_each else {}
    service = PredictionService(predictors, limits, **more)
    bound = web_server.bind("127.0.0.1", 0)
    hosts = ("127.0.0.1", "localhost", "::1")
    server = web_server.make_server(make_application(service, access or Access(hosts=hosts)), limits)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    until_s = time.monotonic() + 20
    while not server.started:
        assert thread.is_alive() and time.monotonic() < until_s
        time.sleep(0.005)
    url = web_server.address_of(bound)
    with httpx.Client(base_url=url, timeout=20, trust_env=False) as client:
        yield LocalServer(url, service, client, server, thread)
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive()
