"""The endpoint that answers: OpenAI's, any compatible server, or a server that is started in this process."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import openai

from ser_bench import openai_client, weights
from ser_bench.config import LlmConfig
from ser_bench.config.services import effective_url, own_service
from ser_bench.errors import LLMError
from ser_bench.predictors.llm import local_server
from ser_bench.predictors.llm.batches import MOST_RESULT_BYTES
from ser_bench.redaction import without_credentials

LOCAL_MOST_LOGPROBS = 20_000
"""llama.cpp has no limit; this many of the 49,152 tokens of SmolLM2 have always contained all labels."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where requests are sent.

    Attributes:
        name: name in error messages.
        base_url: URL with its version path; None: OpenAI's.
        api_key_env: name of the environment variable that holds the key; None: no key is needed.
        key: the key of a server that this process started, else None.
        most_logprobs: a question is asked again with more logprobs, up to this number, until they determine the
            probabilities of all labels; 0: never, because an endpoint may charge for every request.
        is_llama_cpp: True for the server that this process started.
    """

    name: str
    base_url: str | None
    api_key_env: str | None
    key: str | None = None
    most_logprobs: int = 0
    is_llama_cpp: bool = False

    @property
    def secret(self) -> str | None:
        """The key in use, which must not appear in any text; None if no key is needed."""
        if self.key or self.api_key_env is None:
            return self.key
        return openai_client.require_key(self.api_key_env)

    def connect(self, cfg: LlmConfig) -> openai.AsyncOpenAI:
        """Return a client of this endpoint."""
        extras = client_extras(cfg)
        return openai_client.async_client(self.base_url, self.api_key_env, cfg.timeout_s, self.key, extras)

    def connect_to_batches(self, cfg: LlmConfig) -> openai.OpenAI:
        """Return a synchronous client for the batch API, which repeats a request after an error that may pass."""
        extras = replace(client_extras(cfg), most_response_bytes=MOST_RESULT_BYTES)
        return openai_client.openai_client(
            self.base_url, self.api_key_env, cfg.timeout_s, cfg.max_retries, self.key, extras=extras
        )


def client_extras(cfg: LlmConfig) -> openai_client.ClientExtras:
    """Return what the service of a configuration needs beside a key in `Authorization`."""
    return openai_client.ClientExtras(cfg.key_header, cfg.api_version)


@contextmanager
def open_endpoint(
    cfg: LlmConfig, threads: int | None = None, context_tokens: int = local_server.CONTEXT_TOKENS
) -> Iterator[Endpoint]:
    """Provide the endpoint of a configuration for a `with` block; a local server is started and stopped.

    Args:
        cfg: the configuration.
        threads: CPU threads of a local server; None: all that this process may use.
        context_tokens: context of each request to a local server, unless `llm.context_tokens` is set.

    Raises:
        LLMError: if the key, the package of the local server or its model file is missing.
        WeightsError: if the local model cannot be downloaded.
    """
    if not is_in_process(cfg):
        _refuse_placeholder(cfg)
        yield Endpoint(without_credentials(address(cfg)), cfg.base_url, cfg.api_key_env)
        return
    with local_server.serve(
        model_file(cfg), cfg.max_concurrency, threads, cfg.context_tokens or context_tokens
    ) as running:
        yield Endpoint("the local server", running.base_url, None, running.key, LOCAL_MOST_LOGPROBS, is_llama_cpp=True)


def check_endpoint(cfg: LlmConfig) -> None:
    """Check what the endpoint needs, before clips are transcribed.

    Raises:
        LLMError: if the key, the package xllamacpp or the model file is missing, the address is not usable, or the
            user's own configuration does not name the service of a stored run.
        WeightsError: if the local model cannot be downloaded.
    """
    if is_in_process(cfg):
        local_server.require_xllamacpp()
        model_file(cfg)
    else:
        _refuse_placeholder(cfg)
        openai_client.check_url(own_service(cfg.base_url, cfg.api_key_env))
        openai_client.require_key(cfg.api_key_env)


def _refuse_placeholder(cfg: LlmConfig) -> None:
    """Refuse an address of `conf/llm/` in which the user's own part is missing: somebody may own that name.

    Raises:
        LLMError: if it holds `//NAME.` or ends with `/DEPLOYMENT`.
    """
    url = address(cfg)
    if "//NAME." in url or url.endswith("/DEPLOYMENT"):
        raise LLMError(f"llm.base_url={url} is an example: set llm.base_url to the address of your own deployment")


def is_in_process(cfg: LlmConfig) -> bool:
    """Return True if this process serves the model itself."""
    return cfg.local and cfg.base_url is None


def address(cfg: LlmConfig) -> str:
    """Return the URL of an endpoint that is not in this process."""
    return effective_url(cfg.base_url)


def identity(cfg: LlmConfig) -> str:
    """Return what identifies the endpoint in cache keys: its URL, or the digest of the local model's file.

    A password in the URL is left out, so that the answers stay valid when it changes.
    """
    if not is_in_process(cfg):
        return without_credentials(address(cfg)).rstrip("/")
    path = model_file(cfg)
    status = path.stat()
    return _identity_of_file(path, status.st_size, status.st_mtime_ns)


@lru_cache
def _identity_of_file(path: Path, _size: int, _modified_ns: int) -> str:
    """Return the digest of a model's file; a large one takes seconds, and is read once per process."""
    with path.open("rb") as file:
        return "gguf:" + hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def model_file(cfg: LlmConfig) -> Path:
    """Return the file of the local model: `llm.gguf`, else the weights `llm.model`, downloaded if necessary.

    Raises:
        LLMError: if the file `llm.gguf` does not exist, or no language model has the name `llm.model`.
        WeightsError: if the weights cannot be downloaded.
    """
    if cfg.gguf is None:
        if cfg.model not in weights.language_models():
            raise LLMError(
                f"llm.model={cfg.model}: llm=local knows no model of this name; choose one of "
                f"{', '.join(weights.language_models())}, or set llm.gguf to the file of another one"
            )
        return weights.fetch(cfg.model)
    path = Path(cfg.gguf).expanduser()
    if not path.is_file():
        raise LLMError(f"llm.gguf={cfg.gguf}: there is no such file")
    return path
