"""Clients of the official `openai` package for any OpenAI-compatible endpoint, and its errors in one line each.

The API key is read from an environment variable when a client is made. Error messages pass `redaction.redact_reply`,
so that the key never appears in a message, a log or a cache.
"""

from __future__ import annotations

import ipaddress
import os
from typing import Any
from urllib.parse import urlsplit

import openai

from ser_bench.errors import LLMError
from ser_bench.redaction import redact_reply

NO_KEY = "no-key-needed"
"""Sent as the key to an endpoint that needs none, because the client requires a value."""
DETAIL_CHARS = 200
"""Longest quotation of a server's own message in an error."""


def openai_client(
    base_url: str | None, api_key_env: str | None, timeout_s: float, max_retries: int, key: str | None = None
) -> openai.OpenAI:
    """Return a synchronous client.

    Args:
        base_url: URL of the endpoint with its version path (`http://host:port/v1`); None: OpenAI's.
        api_key_env: name of the environment variable that holds the key; None: the endpoint needs no key.
        timeout_s: longest time of one request, seconds.
        max_retries: how often a request is repeated after 408, 409, 429, 5xx or a broken connection, as Retry-After
            asks.
        key: the key itself, for a server that this process started.

    Raises:
        LLMError: if the variable is not set.
    """
    http = openai.DefaultHttpxClient(trust_env=False) if is_loopback(base_url) else None
    secret = key or require_key(api_key_env)
    return openai.OpenAI(
        api_key=secret, base_url=base_url, timeout=timeout_s, max_retries=max_retries, http_client=http
    )


def async_client(
    base_url: str | None, api_key_env: str | None, timeout_s: float, key: str | None = None
) -> openai.AsyncOpenAI:
    """Return a client for many requests at once; arguments and errors as for `openai_client`.

    It repeats no request itself: `predictors/llm/request.py` does, so that all requests share the limits.
    """
    http = openai.DefaultAsyncHttpxClient(trust_env=False) if is_loopback(base_url) else None
    secret = key or require_key(api_key_env)
    return openai.AsyncOpenAI(api_key=secret, base_url=base_url, timeout=timeout_s, max_retries=0, http_client=http)


def require_key(api_key_env: str | None) -> str:
    """Return the key from the environment, or `NO_KEY` if none is needed.

    Raises:
        LLMError: if the variable is not set or empty.
    """
    if api_key_env is None:
        return NO_KEY
    secret = os.environ.get(api_key_env, "").strip()
    if not secret:
        raise LLMError(
            f"the environment variable {api_key_env} is not set: this endpoint needs a key (export {api_key_env}=...). "
            "To run without a key, on a small model in this process: python run.py model=llm llm=local"
        )
    return secret


def is_loopback(base_url: str | None) -> bool:
    """Return True if the URL is on this machine; requests to it must not pass a proxy from the environment."""
    host = urlsplit(base_url or "").hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_fatal(error: openai.APIError) -> bool:
    """Return True if every other request would fail in the same way: key, permission, model, request form, quota."""
    if isinstance(error, openai.APIStatusError):
        quota_spent = error.status_code == 429 and "insufficient_quota" in (error.code, error.type)
        return quota_spent or (400 <= error.status_code < 500 and error.status_code not in (408, 409, 413, 429))
    return False


def is_transient(error: openai.APIError) -> bool:
    """Return True if repeating the request may help: 408, 409, 429, 5xx, a broken connection or a timeout."""
    if isinstance(error, openai.APIStatusError):
        transient = error.status_code in (408, 409, 429) or error.status_code >= 500
        return transient and not is_fatal(error)
    return isinstance(error, openai.APIConnectionError)


def is_too_long(error: openai.APIError) -> bool:
    """Return True if this one prompt does not fit into the context of the model."""
    if not isinstance(error, openai.APIStatusError) or error.status_code not in (400, 413):
        return False
    return error.status_code == 413 or "context" in f"{error.code} {error.type} {error.message}".lower()


def explain(error: openai.OpenAIError, endpoint: str, model: str, key: str | None = None) -> LLMError:
    """Return an error of an endpoint as one line for the user, with the next step.

    Args:
        error: what the client raised.
        endpoint: name of the endpoint in the message.
        model: the model that was asked for.
        key: the key in use, which must not appear in the message.
    """
    status = error.status_code if isinstance(error, openai.APIStatusError) else None
    detail = _detail(error, key)
    if status in (401, 403):
        return LLMError(
            f"{endpoint} refuses the key (HTTP {status}: {detail}). Check the variable that llm.api_key_env names"
        )
    if status == 404:
        return LLMError(
            f"{endpoint} has no model {model!r}, or the address is wrong (HTTP 404: {detail}). "
            "Set llm.model or llm.base_url"
        )
    if status == 429:
        return LLMError(
            f"{endpoint} limits requests, or the quota is spent (HTTP 429: {detail}). The answers so far are kept: run "
            "the same command again later, with a smaller llm.max_concurrency or llm.limit"
        )
    if status in (400, 422):
        return LLMError(
            f"{endpoint} does not accept the request (HTTP {status}: {detail}). If it has no logprobs, "
            "set llm.top_logprobs=0"
        )
    if status is not None:
        return LLMError(
            f"{endpoint} fails (HTTP {status}: {detail}). The answers so far are kept: run the same command again later"
        )
    if isinstance(error, openai.APITimeoutError):
        return LLMError(f"{endpoint} does not answer in time. Raise llm.timeout_s or lower llm.max_concurrency")
    return LLMError(
        f"{endpoint} cannot be reached ({detail}). Check llm.base_url and the network, or run with llm=local"
    )


def _detail(error: openai.OpenAIError, key: str | None) -> str:
    """Return the server's own message on one line, redacted and shortened."""
    message: Any = getattr(error, "body", None)
    if isinstance(message, dict):
        message = message.get("message") or message.get("error")
    if isinstance(error, openai.APIConnectionError) and error.__cause__ is not None:
        message = error.__cause__
    line = " ".join(redact_reply(str(message or error), key).split())
    return line if len(line) <= DETAIL_CHARS else line[: DETAIL_CHARS - 1] + "…"
