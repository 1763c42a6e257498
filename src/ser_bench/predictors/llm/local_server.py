"""A llama.cpp server in this process, on loopback: the OpenAI protocol without a remote service, a key or a network.

The server runs in threads of this process, so it ends with the process, even if that is killed. The operating system
assigns a free port. Requests need a random key of this server: a client cannot reach the wrong server by mistake, and
other users of the machine cannot use this one.
"""

from __future__ import annotations

import gc
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ser_bench import extras
from ser_bench.errors import LLMError
from ser_bench.redaction import register_secret

HOST = "127.0.0.1"
ANY_FREE_PORT = 0
WAIT_POLICY = {"OMP_WAIT_POLICY": "passive"}
"""Environment of OpenMP, read when llama.cpp is loaded: its threads sleep while they wait for each other.

By default they run empty loops. On cores that other processes use as well, a thread that waits then takes the time that
the thread for which it waits needs: two threads are twice as slow as one.
"""
USERS_WAIT_POLICY = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
"""A user who sets one of these has chosen otherwise."""
CONTEXT_TOKENS = 1_024
"""Least context of a request: prompt and answer. The prompt `paper` has about 150 tokens; a minute of speech 300."""
SILENT = -1
"""Verbosity of llama.cpp at which nothing is printed."""
NO_PROMPT_CACHE_MIB = 0
GGUF_MAGIC = b"GGUF"


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A running server.

    Attributes:
        address: `http://127.0.0.1:<port>`, the root of llama.cpp's own endpoints.
        key: the key that requests must carry.
    """

    address: str
    key: str

    @property
    def base_url(self) -> str:
        """The root of the OpenAI-compatible endpoints."""
        return f"{self.address}/v1"


@contextmanager
def serve(
    gguf: Path, slots: int, threads: int | None = None, context_tokens: int = CONTEXT_TOKENS
) -> Iterator[LocalServer]:
    """Run a server for a `with` block.

    Args:
        gguf: file of the model.
        slots: number of concurrent requests. Each slot evaluates the fixed beginning of the prompts once, and then only
            what differs from the last prompt. Further slots bring no speed where few cores compute, and repeat this
            beginning.
        threads: CPU threads; None: all that this process may use.
        context_tokens: tokens of prompt and answer together, per slot.

    Raises:
        LLMError: if xllamacpp is not installed, or llama.cpp cannot load the file.
    """
    require_xllamacpp()
    _check_gguf(gguf)
    import xllamacpp

    params = xllamacpp.CommonParams()
    key = secrets.token_hex(16)
    register_secret(key)
    params.model.path = str(gguf)
    params.model_alias = {gguf.stem}
    params.hostnames, params.port, params.reuse_port = [HOST], ANY_FREE_PORT, False
    params.api_keys = [key]
    params.n_parallel, params.n_ctx = slots, slots * context_tokens
    # Each slot keeps its last prompt. By default, llama.cpp also keeps earlier prompts, up to 8 GiB, for no use here.
    params.cache_prompt, params.cache_ram_mib = True, NO_PROMPT_CACHE_MIB
    # Parts after the first difference are not reused: moved to another position, they would not be what the model
    # computes for this prompt.
    params.n_cache_reuse = 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads or len(os.sched_getaffinity(0))
    params.verbosity, params.ui, params.endpoint_metrics = SILENT, False, True
    try:
        server = xllamacpp.Server(params)
    except Exception as error:  # the binding raises plain RuntimeErrors
        raise LLMError(
            f"{gguf}: llama.cpp cannot load this model ({error}). Choose another GGUF file with llm.gguf"
        ) from None
    # The main loop answers this call, so the loop is running afterwards: a server stopped before that never ends.
    server.handle_metrics()
    try:
        yield LocalServer(server.listening_address, key)
    finally:
        # Only the destructor stops the threads and frees the model.
        del server
        gc.collect()


def require_xllamacpp() -> None:
    """Check that the package xllamacpp can be imported.

    Raises:
        LLMError: if it is not installed; the message holds the command that installs it.
    """
    with _wait_policy():
        extras.require("xllamacpp", "llm=local", LLMError)


@contextmanager
def _wait_policy() -> Iterator[None]:
    """Set `WAIT_POLICY` for a `with` block, in which llama.cpp is loaded, unless the user has set a policy."""
    if "xllamacpp" in sys.modules or any(name in os.environ for name in USERS_WAIT_POLICY):
        yield
        return
    os.environ |= WAIT_POLICY
    try:
        yield
    finally:
        for name in WAIT_POLICY:
            os.environ.pop(name, None)


def _check_gguf(gguf: Path) -> None:
    try:
        with gguf.open("rb") as file:
            magic = file.read(len(GGUF_MAGIC))
    except OSError as error:
        raise LLMError(f"{gguf}: the model cannot be read ({error.strerror}). Set llm.gguf to a GGUF file") from error
    if magic != GGUF_MAGIC:
        raise LLMError(f"{gguf}: this is not a GGUF file. Set llm.gguf to a model in llama.cpp's format")
