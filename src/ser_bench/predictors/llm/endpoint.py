"""Which service answers: OpenAI's, any compatible server, or the one that is started in this process."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import openai

from ser_bench import openai_client, weights
from ser_bench.config import LlmConfig
from ser_bench.errors import LLMError
from ser_bench.predictors.llm import local_server

OPENAI_URL = "https://api.openai.com/v1"
LOCAL_MOST_LOGPROBS = 20_000
"""llama.cpp knows no limit; this many of SmolLM2's 49,152 tokens have always held all labels."""


@dataclass(frozen=True, slots=True)
class Service:
    """Where requests go.

    Attributes:
        name: as errors call it.
        base_url: None: OpenAI's own.
        api_key_env: variable that holds the key, or None.
        key: of a server that this process started, or None.
        most_logprobs: up to how many reported tokens a prompt may be asked again with more of them; 0: never, since
            asking again is paid again.
        is_llama_cpp: True for the server that this process started.
    """

    name: str
    base_url: str | None
    api_key_env: str | None
    key: str | None = None
    most_logprobs: int = 0
    is_llama_cpp: bool = False

    @property
    def secret(self) -> str:
        """What must never be seen."""
        return self.key or openai_client.require_key(self.api_key_env)

    def connect(self, cfg: LlmConfig) -> openai.AsyncOpenAI:
        """A client of this service."""
        return openai_client.async_client(self.base_url, self.api_key_env, cfg.timeout_s, self.key)


@contextmanager
def open_service(
    cfg: LlmConfig, threads: int | None = None, context_tokens: int = local_server.CONTEXT_TOKENS
) -> Iterator[Service]:
    """The service of a configuration, for the length of a `with` block; threads and context of one in this process.

    Raises:
        LLMError: no key, no local server, no such model file.
        WeightsError: the local model cannot be brought here.
    """
    if not is_in_process(cfg):
        yield Service(address(cfg), cfg.base_url, cfg.api_key_env)
        return
    with local_server.serve(
        model_file(cfg), cfg.max_concurrency, threads, cfg.context_tokens or context_tokens
    ) as running:
        yield Service("the local server", running.base_url, None, running.key, LOCAL_MOST_LOGPROBS, is_llama_cpp=True)


def check(cfg: LlmConfig) -> None:
    """Fail now rather than after all clips were transcribed.

    Raises:
        LLMError: no key, no xllamacpp, no such model file.
        WeightsError: the local model cannot be brought here.
    """
    if is_in_process(cfg):
        local_server.require_xllamacpp()
        model_file(cfg)
    else:
        openai_client.require_key(cfg.api_key_env)


def is_in_process(cfg: LlmConfig) -> bool:
    """True where this process serves the model itself."""
    return cfg.local and cfg.base_url is None


def address(cfg: LlmConfig) -> str:
    """URL of a service that is not in this process."""
    return cfg.base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL


def identity(cfg: LlmConfig) -> str:
    """Who answers, for the cache: the URL of a service, or the digest of the local model's file."""
    if not is_in_process(cfg):
        return address(cfg).rstrip("/")
    with model_file(cfg).open("rb") as file:
        return "gguf:" + hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def model_file(cfg: LlmConfig) -> Path:
    """The local model's file; fetched where it is one of the known weights and not here yet."""
    if cfg.gguf is None:
        return weights.fetch(cfg.model)
    path = Path(cfg.gguf).expanduser()
    if not path.is_file():
        raise LLMError(f"llm.gguf={cfg.gguf}: there is no such file")
    return path
