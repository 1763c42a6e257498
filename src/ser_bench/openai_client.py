"""The official `openai` client for any service that speaks its protocol, and errors of a service in one line each.

The key is read from an environment variable when a client is made. It stands in no message, log or cache: whatever a
server says is passed through `redact` first, because some servers repeat the key that they refuse.
"""

from __future__ import annotations

import ipaddress
import os
import re
from typing import Any
from urllib.parse import urlsplit

import openai

from ser_bench.errors import LLMError

NO_KEY = "no-key-needed"
"""Sent where a server asks for no key; the client insists on one."""
SECRET = re.compile(r"\b(sk|pk|key)-[A-Za-z0-9_\-*]{6,}")
REDACTED = "[redacted]"
DETAIL_CHARS = 200
"""How much of a server's own words is quoted in an error."""


def openai_client(
    base_url: str | None, api_key_env: str | None, timeout_s: float, max_retries: int, key: str | None = None
) -> openai.OpenAI:
    """A client that waits for its answers.

    Args:
        base_url: of the service, with its version path (`http://host:port/v1`); None: OpenAI's.
        api_key_env: environment variable that holds the key; None: the service needs none.
        timeout_s: per attempt, seconds.
        max_retries: attempts after the first, on 408, 409, 429, 5xx and broken connections; Retry-After is obeyed.
        key: the key itself, for a server that this process started.

    Raises:
        LLMError: the variable is not set.
    """
    http = openai.DefaultHttpxClient(trust_env=False) if is_loopback(base_url) else None
    secret = key or require_key(api_key_env)
    return openai.OpenAI(
        api_key=secret, base_url=base_url, timeout=timeout_s, max_retries=max_retries, http_client=http
    )


def async_client(
    base_url: str | None, api_key_env: str | None, timeout_s: float, key: str | None = None
) -> openai.AsyncOpenAI:
    """As `openai_client`, for many requests at once; repeats nothing by itself (`attempts` does)."""
    http = openai.DefaultAsyncHttpxClient(trust_env=False) if is_loopback(base_url) else None
    secret = key or require_key(api_key_env)
    return openai.AsyncOpenAI(api_key=secret, base_url=base_url, timeout=timeout_s, max_retries=0, http_client=http)


def require_key(api_key_env: str | None) -> str:
    """The key.

    Raises:
        LLMError: it is needed, and its variable is not set.
    """
    if api_key_env is None:
        return NO_KEY
    secret = os.environ.get(api_key_env, "").strip()
    if not secret:
        raise LLMError(
            f"the environment variable {api_key_env} is not set: this service needs a key (export {api_key_env}=...). "
            "To run without one, on a small model in this process: python run.py model=llm llm=local"
        )
    return secret


def is_loopback(base_url: str | None) -> bool:
    """True for a server on this machine; a proxy from the environment must not see requests to it."""
    host = urlsplit(base_url or "").hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def redact(text: str, secret: str | None = None) -> str:
    """The text without the key, or anything that looks like one."""
    if secret and secret != NO_KEY:
        text = text.replace(secret, REDACTED)
    return SECRET.sub(REDACTED, text)


def ends_the_run(error: openai.APIError) -> bool:
    """True where the next request would fail the same way: key, permission, model, form of the request, quota."""
    if isinstance(error, openai.APIStatusError):
        spent = error.status_code == 429 and "insufficient_quota" in (error.code, error.type)
        return spent or (400 <= error.status_code < 500 and error.status_code not in (408, 409, 413, 429))
    return False


def may_pass(error: openai.APIError) -> bool:
    """True for a fault that may be gone when the request is repeated: 408, 409, 429, 5xx, connection, timeout."""
    if isinstance(error, openai.APIStatusError):
        passing = error.status_code in (408, 409, 429) or error.status_code >= 500
        return passing and not ends_the_run(error)
    return isinstance(error, openai.APIConnectionError)


def too_long(error: openai.APIError) -> bool:
    """True where this one prompt does not fit the model's context."""
    if not isinstance(error, openai.APIStatusError) or error.status_code not in (400, 413):
        return False
    return error.status_code == 413 or "context" in f"{error.code} {error.type} {error.message}".lower()


def explain(error: openai.OpenAIError, service: str, model: str, secret: str | None = None) -> LLMError:
    """What a service's error means for the user, in one line, with the next step."""
    status = error.status_code if isinstance(error, openai.APIStatusError) else None
    detail = _detail(error, secret)
    if status in (401, 403):
        return LLMError(
            f"{service} refuses the key (HTTP {status}: {detail}). Check the variable that llm.api_key_env names"
        )
    if status == 404:
        return LLMError(
            f"{service} does not know the model {model!r} or the address (HTTP 404: {detail}). "
            "Set llm.model or llm.base_url"
        )
    if status == 429:
        return LLMError(
            f"{service} limits requests or the quota is spent (HTTP 429: {detail}). Answers so far are kept: run the "
            "same command again later, with a smaller llm.max_concurrency or llm.limit"
        )
    if status in (400, 422):
        return LLMError(
            f"{service} does not accept the form of the request (HTTP {status}: {detail}). Where it has no logprobs, "
            "set llm.top_logprobs=0"
        )
    if status is not None:
        return LLMError(
            f"{service} fails (HTTP {status}: {detail}). Answers so far are kept: run the same command again later"
        )
    if isinstance(error, openai.APITimeoutError):
        return LLMError(f"{service} does not answer in time. Raise llm.timeout_s or lower llm.max_concurrency")
    return LLMError(
        f"{service} cannot be reached ({detail}). Check llm.base_url and the network, or run with llm=local"
    )


def _detail(error: openai.OpenAIError, secret: str | None) -> str:
    """The server's own words on one line, without the key, cut to size."""
    words: Any = getattr(error, "body", None)
    if isinstance(words, dict):
        words = words.get("message") or words.get("error")
    if isinstance(error, openai.APIConnectionError) and error.__cause__ is not None:
        words = error.__cause__
    line = " ".join(redact(str(words or error), secret).split())
    return line if len(line) <= DETAIL_CHARS else line[: DETAIL_CHARS - 1] + "…"
