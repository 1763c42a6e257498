"""`ser-bench serve`: trained runs behind HTTP."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ser_bench import extras, tracking
from ser_bench.config import compose
from ser_bench.config.secret_words import is_variable_name
from ser_bench.config.services import only_own_services
from ser_bench.errors import ConfigError
from ser_bench.inference.audio_predictor import AudioPredictor

if TYPE_CHECKING:
    from ser_bench.serving.application import Access

PACKAGES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client", "websockets")
MAX_PORT = 65_535
SHORTEST_TOKEN = 16
"""Characters; `openssl rand -hex 16` gives 32."""


@dataclass(frozen=True)
class ServeOptions:
    """The options of the command; docs/serve.md describes them.

    Attributes:
        host: address to which the server is bound.
        port: 0 for any that is free.
        token_env: name of the environment variable with the token; "" for none.
        allow_hosts: further names that the header Host may have.
        allow_origins: origins of other sites whose pages may ask.
        max_mb: largest body, MiB.
        max_seconds: longest clip, seconds; 0: that of the run.
        deadline_s: longest time to an answer, seconds.
        body_timeout_s: longest time in which a body must arrive, seconds.
        queue: largest number of requests that wait.
        batch: largest number of clips that are predicted together.
        streams: largest number of streams.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token_env: str = ""
    allow_hosts: Sequence[str] = ()
    allow_origins: Sequence[str] = ()
    max_mb: int = 16
    max_seconds: float = 0.0
    deadline_s: float = 30.0
    body_timeout_s: float = 20.0
    queue: int = 128
    batch: int = 16
    streams: int = 4

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: one is not positive, or the port is none.
        """
        for value, option in (
            *((self.max_mb, "--max-mb"), (self.deadline_s, "--deadline"), (self.body_timeout_s, "--body-timeout")),
            *((self.queue, "--queue"), (self.batch, "--batch")),
        ):
            if not value > 0:
                raise ConfigError(f"{option} must be positive, not {value}")
        if not 0 <= self.port <= MAX_PORT:
            raise ConfigError(f"--port={self.port} is not from 0 to {MAX_PORT}")
        if not (self.max_seconds >= 0 and self.streams >= 0):
            raise ConfigError("--max-seconds and --streams must not be negative")


def run(overrides: Sequence[str], words: Sequence[str], options: ServeOptions) -> None:
    """Load the runs, serve them until SIGTERM or Ctrl-C, and answer the accepted requests before the end.

    Args:
        overrides: Hydra overrides; they decide the store, the cache, devices and the services that may be asked.
        words: ids of runs, or their first letters.
        options: of the server.

    Raises:
        ConfigError: no run is named, a package is missing, the address cannot be used, or it is open to other machines
            and there is no token.
        SerBenchError: a run cannot be loaded.
        KeyboardInterrupt: after Ctrl-C.
    """
    if not words:
        raise ConfigError("no run is named: ser-bench serve RUN [RUN...], with the ids that the runs printed")
    for package in PACKAGES:
        extras.require(package, "ser-bench serve")
    from ser_bench.serving import web_server
    from ser_bench.serving.application import make_application
    from ser_bench.serving.limits import MIB, Limits
    from ser_bench.serving.prediction_service import PredictionService

    access = _access(options)
    cfg = compose(list(overrides))
    limits = Limits(
        body_bytes=options.max_mb * MIB,
        duration_s=options.max_seconds,
        body_timeout_s=options.body_timeout_s,
        deadline_s=options.deadline_s,
        waiting=options.queue,
        batch=options.batch,
        memory_bytes=max(Limits.memory_bytes, 4 * options.max_mb * MIB),
        streams=options.streams,
    )
    bound = web_server.bind(options.host, options.port)
    with bound, only_own_services(cfg):
        predictors = []
        for word in words:
            predictor = AudioPredictor.from_run(tracking.load_run(cfg.tracking, word), cfg)
            predictor.warm_up()
            print(f"loaded   {predictor.name}, run {predictor.run_id}", flush=True)
            predictors.append(predictor)
        service = PredictionService(predictors, limits)
        token = "with a token" if access.token else "without a token"
        serving = f"serving  {web_server.address_of(bound)} {token}; /docs describes it, Ctrl-C ends it"
        try:
            app = make_application(service, access)
            web_server.serve(app, bound, limits, lambda: print(serving, flush=True))
        finally:
            service.close()
            print("stopped  accepted requests were answered", flush=True)


def _access(options: ServeOptions) -> Access:
    """Return who may ask.

    Raises:
        ConfigError: the variable of the token is not set or too short, or a token is needed and missing.
    """
    from ser_bench.serving.application import Access
    from ser_bench.serving.request_guard import TokenCheck, is_loopback_host

    local = is_loopback_host(options.host)
    token = None
    if options.token_env:
        if not is_variable_name(options.token_env):
            raise ConfigError("--token-env takes the name of an environment variable, not the token itself")
        secret = os.environ.get(options.token_env, "").strip()
        if len(secret) < SHORTEST_TOKEN:
            raise ConfigError(
                f"the environment variable {options.token_env} needs a token of {SHORTEST_TOKEN} characters or more: "
                f"export {options.token_env}=$(openssl rand -hex 16)"
            )
        token = TokenCheck(secret)
    elif not local:
        raise ConfigError(
            f"--host={options.host} is open to other machines, and there is no token: "
            "export SER_BENCH_TOKEN=$(openssl rand -hex 16), and add --token-env SER_BENCH_TOKEN"
        )
    names = ("127.0.0.1", "localhost", "::1", options.host.strip("[]").lower()) if local else ()
    hosts = (*names, *(name.lower() for name in options.allow_hosts)) if names or options.allow_hosts else ()
    return Access(token, hosts, tuple(origin.rstrip("/") for origin in options.allow_origins))
