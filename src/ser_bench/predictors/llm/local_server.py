"""A llama.cpp server inside this process, on loopback: the OpenAI protocol without a service, a key or a network.

It lives in threads of this process and so ends with it, even when that is killed. The system gives it a free port;
requests need a key made up for this one server, so that a client can neither reach another server nor another user
this one.
"""

from __future__ import annotations

import gc
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ser_bench.errors import LLMError

HOST = "127.0.0.1"
ANY_FREE_PORT = 0
CONTEXT_TOKENS = 1_024
"""Per request, at least: prompt and answer. The paper's takes about 150 tokens and a minute of speech 300 more."""
SILENT = -1
"""llama.cpp's verbosity at which nothing is printed."""
NO_MEMORY_OF_PROMPTS = 0
GGUF_MAGIC = b"GGUF"


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A running server.

    Attributes:
        address: `http://127.0.0.1:<port>`, of llama.cpp's own endpoints.
        key: what its requests must carry.
    """

    address: str
    key: str

    @property
    def base_url(self) -> str:
        """Of the OpenAI-compatible endpoints."""
        return f"{self.address}/v1"


@contextmanager
def serve(
    gguf: Path, slots: int, threads: int | None = None, context_tokens: int = CONTEXT_TOKENS
) -> Iterator[LocalServer]:
    """A server for the length of a `with` block.

    Args:
        gguf: the model.
        slots: requests worked on at the same time; each keeps what it computed for the fixed part of the prompt.
        threads: of the CPU; None: as many as this process may use.
        context_tokens: per slot.

    Raises:
        LLMError: xllamacpp is not installed, or the file is not a model that llama.cpp can load.
    """
    require_xllamacpp()
    _check_gguf(gguf)
    import xllamacpp

    params = xllamacpp.CommonParams()
    key = secrets.token_hex(16)
    params.model.path = str(gguf)
    params.model_alias = {gguf.stem}
    params.hostnames, params.port, params.reuse_port = [HOST], ANY_FREE_PORT, False
    params.api_keys = [key]
    params.n_parallel, params.n_ctx = slots, slots * context_tokens
    # Each slot keeps its last prompt. llama.cpp would keep all earlier ones too, up to 8 GiB of what nobody asks again.
    params.cache_ram_mib = NO_MEMORY_OF_PROMPTS
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads or len(os.sched_getaffinity(0))
    params.verbosity, params.ui, params.endpoint_metrics = SILENT, False, True
    try:
        server = xllamacpp.Server(params)
    except Exception as error:  # the binding raises bare RuntimeErrors
        raise LLMError(
            f"{gguf}: llama.cpp cannot load this model ({error}). Choose another GGUF file with llm.gguf"
        ) from None
    # Answered by the main loop, so that it runs: a server that is told to stop before it does never stops.
    server.handle_metrics()
    try:
        yield LocalServer(server.listening_address, key)
    finally:
        # Its destructor stops the threads and frees the model; nothing else does.
        del server
        gc.collect()


def require_xllamacpp() -> None:
    """Fail early, with the command that installs it.

    Raises:
        LLMError: the package is not installed.
    """
    try:
        import xllamacpp  # noqa: F401
    except ImportError as error:
        raise LLMError(
            "llm=local needs the package xllamacpp, which runs the model in this process: pip install 'ser-bench[demo]'"
        ) from error


def _check_gguf(gguf: Path) -> None:
    try:
        with gguf.open("rb") as file:
            magic = file.read(len(GGUF_MAGIC))
    except OSError as error:
        raise LLMError(f"{gguf}: the model cannot be read ({error.strerror}). Set llm.gguf to a GGUF file") from error
    if magic != GGUF_MAGIC:
        raise LLMError(f"{gguf}: this is not a GGUF file. Set llm.gguf to a model in llama.cpp's format")
