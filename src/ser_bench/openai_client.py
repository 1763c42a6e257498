"""Clients of the official `openai` package for any OpenAI-compatible endpoint, and its errors in one line each.

The API key is read from an environment variable when a client is made, checked, and registered as a secret
(`redaction.register_secret`), so that it never appears in a message, a log or a cache.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import openai

from ser_bench.config.folders import RUN_COMMAND
from ser_bench.config.secret_words import is_variable_name
from ser_bench.config.services import OPENAI_URL, URL_VARIABLE, effective_url, own_service
from ser_bench.errors import LLMError
from ser_bench.proxies import explain_client_error
from ser_bench.redaction import credentials_of, redact_reply, register_secret, without_credentials
from ser_bench.response_limit import (
    ACCEPTED_ENCODING,
    ResponseRefusedError,
    limit_async_response,
    limit_response,
)

NO_KEY = "no-key-needed"
"""Sent as the key to an endpoint that needs none, because the client requires a value."""
ENCODING_HEADER = {"accept-encoding": ACCEPTED_ENCODING}
HEADER_NAME = re.compile(r"[A-Za-z][A-Za-z-]{0,40}")
"""Names of headers that may carry a key."""
DETAIL_CHARS = 200
"""Longest quotation of a server's own message in an error."""


@dataclass(frozen=True, slots=True)
class ClientExtras:
    """What a service needs beside a key in the header `Authorization`.

    Attributes:
        key_header: name of the header that carries the key instead; None: `Authorization`.
        api_version: value of the query parameter `api-version`; None: it is not sent.
        most_response_bytes: longest response that a synchronous client reads; None: the usual limit.
    """

    key_header: str | None = None
    api_version: str | None = None
    most_response_bytes: int | None = None

    @property
    def query(self) -> dict[str, object]:
        """Parameters of the address of every request."""
        return {} if self.api_version is None else {"api-version": self.api_version}


def _check_extras(extras: ClientExtras | None) -> ClientExtras:
    """Return what a service needs, or nothing.

    Raises:
        LLMError: if `key_header` cannot be the name of a header.
    """
    if extras is None:
        return ClientExtras()
    if extras.key_header is not None and not HEADER_NAME.fullmatch(extras.key_header):
        raise LLMError(
            "llm.key_header takes the name of an HTTP header, such as api-key, and this value is none. The key itself "
            "belongs into the environment variable that llm.api_key_env names"
        )
    return extras


def _move_key(request: Any, key_header: str | None, secret: str) -> None:
    """Put the key of a request of httpx into another header than `Authorization`."""
    if key_header is not None:
        request.headers.pop("authorization", None)
        if secret != NO_KEY:
            request.headers[key_header] = secret


def openai_client(
    base_url: str | None,
    api_key_env: str | None,
    timeout_s: float,
    max_retries: int,
    key: str | None = None,
    group: str = "llm",
    extras: ClientExtras | None = None,
) -> openai.OpenAI:
    """Return a synchronous client. It follows no redirects, which could carry a transcript to another host.

    Args:
        base_url: URL of the endpoint with its version path (`http://host:port/v1`); None: as `effective_url` says.
        api_key_env: name of the environment variable that holds the key; None: the endpoint needs no key.
        timeout_s: longest time of one request, seconds.
        max_retries: how often a request is repeated after 408, 409, 429, 5xx or a broken connection, as Retry-After
            asks.
        key: the key itself, for a server that this process started; its responses have no limit of size.
        group: the configuration group of the service, for messages.
        extras: what the service needs beside a key in `Authorization`; None: nothing.

    Raises:
        LLMError: if the variable is not set, its value cannot be a key, the address or a proxy cannot be used, or the
            user's own configuration does not name this service (`config.services`).
    """
    url = check_url(base_url if key else own_service(base_url, api_key_env, group))
    secret = key or require_key(api_key_env)
    extras = _check_extras(extras)

    limit = partial(limit_response, most_bytes=extras.most_response_bytes)

    def move_key(request: Any) -> None:
        _move_key(request, extras.key_header, secret)

    try:
        hooks: dict[str, Any] = {} if key else {"request": [move_key], "response": [limit]}
        http = openai.DefaultHttpxClient(
            trust_env=not is_loopback(url), follow_redirects=False, headers=ENCODING_HEADER, event_hooks=hooks
        )
        client = openai.OpenAI(
            api_key=secret,
            base_url=url,
            timeout=timeout_s,
            max_retries=max_retries,
            http_client=http,
            default_query=extras.query,
        )
    except Exception as error:  # of httpx, whose errors of settings have no common base class
        raise LLMError(f"{without_credentials(url)}: {explain_client_error(error, f'{group}.base_url')}") from None
    _hide_account_from_others(client, url)
    return client


def async_client(
    base_url: str | None,
    api_key_env: str | None,
    timeout_s: float,
    key: str | None = None,
    extras: ClientExtras | None = None,
) -> openai.AsyncOpenAI:
    """Return a client for many requests at once; arguments and errors as for `openai_client`.

    It repeats no request itself: `predictors/llm/request.py` does, so that all requests share the limits.
    """
    url = check_url(base_url if key else own_service(base_url, api_key_env))
    secret = key or require_key(api_key_env)
    extras = _check_extras(extras)

    async def move_key(request: Any) -> None:
        _move_key(request, extras.key_header, secret)

    try:
        hooks: dict[str, Any] = {} if key else {"request": [move_key], "response": [limit_async_response]}
        http = openai.DefaultAsyncHttpxClient(
            trust_env=not is_loopback(url), follow_redirects=False, headers=ENCODING_HEADER, event_hooks=hooks
        )
        client = openai.AsyncOpenAI(
            api_key=secret,
            base_url=url,
            timeout=timeout_s,
            max_retries=0,
            http_client=http,
            default_query=extras.query,
        )
    except Exception as error:  # of httpx, whose errors of settings have no common base class
        raise LLMError(f"{without_credentials(url)}: {explain_client_error(error, 'llm.base_url')}") from None
    _hide_account_from_others(client, url)
    return client


def require_key(api_key_env: str | None) -> str:
    """Return the key from the environment, or `NO_KEY` if none is needed. White space around the key is removed.

    Raises:
        LLMError: if the variable is not set or empty, or its value cannot be sent as a key. The message contains no
            part of the value.
    """
    if api_key_env is None:
        return NO_KEY
    if not is_variable_name(api_key_env):
        register_secret(api_key_env)
        raise LLMError(
            "llm.api_key_env takes the name of an environment variable, and this value is none: it may be the key "
            "itself. Export the key and give the name: llm.api_key_env=OPENAI_API_KEY"
        )
    raw = os.environ.get(api_key_env, "")
    register_secret(raw)
    secret = raw.strip()
    register_secret(secret)
    if not secret:
        raise LLMError(
            f"the environment variable {api_key_env} is not set: this endpoint needs a key (export {api_key_env}=...). "
            f"To run without a key, on a small model in this process: {RUN_COMMAND} model=llm llm=local"
        )
    reason = why_no_key(secret)
    if reason:
        raise LLMError(
            f"the value of the environment variable {api_key_env} cannot be a key, because it {reason}. Copy the key "
            f"again, without anything before, in or after it: export {api_key_env}=..."
        )
    return secret


def why_no_key(secret: str) -> str:
    """Return why a text cannot be sent as a key, without any part of it; "" if it can.

    A header of HTTP holds visible ASCII characters. Line breaks and curly quotation marks come from a document or a
    chat from which a key was copied.

    >>> why_no_key("sk-1234"), why_no_key("sk-12 34")
    ('', 'contains a space')
    """
    if re.search(r"[\r\n]", secret):
        return "contains a line break"
    if re.search(r"\s", secret):
        return "contains a space"
    if not secret.isascii():
        return "contains a character outside ASCII, such as a curly quotation mark or a long dash"
    if not secret.isprintable():
        return "contains a control character"
    if secret[0] in "\"'`" or secret[-1] in "\"'`":
        return "begins or ends with a quotation mark"
    return ""


def check_url(base_url: str | None) -> str:
    """Return the effective URL; its passwords are registered as secrets.

    Raises:
        LLMError: if it is no URL of an HTTP server.
    """
    url = effective_url(base_url)
    for secret in credentials_of(url):
        register_secret(secret)
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is no number, or a bracket of an IPv6 address is missing
        usable = False
    if not usable or re.search(r"\s", url) or not url.isprintable():
        source = URL_VARIABLE if url == os.environ.get(URL_VARIABLE, "").strip() else "base_url"
        raise LLMError(
            f"{source}={without_credentials(url)!r} is not the address of a service; write it with scheme, host and "
            "version path, as in http://127.0.0.1:8000/v1"
        )
    return url


def is_loopback(base_url: str | None) -> bool:
    """Return True if the effective URL is on this machine; requests to it must not pass a proxy from the environment.

    Only addresses and the name `localhost` are judged. Other names are not looked up.
    """
    host = (urlsplit(effective_url(base_url)).hostname or "").rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        try:
            address = ipaddress.ip_address(socket.inet_aton(host))  # short forms, such as 127.1
        except (OSError, ValueError):
            return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_loopback or mapped.is_unspecified)  # a connection to 0.0.0.0 goes to this machine


def _hide_account_from_others(client: openai.OpenAI | openai.AsyncOpenAI, url: str) -> None:
    """Send the organisation and project of `OPENAI_ORG_ID` and `OPENAI_PROJECT_ID` to OpenAI only."""
    if urlsplit(url).hostname != urlsplit(OPENAI_URL).hostname:
        client.organization = client.project = None


def is_fatal(error: openai.APIError) -> bool:
    """Return True if every other request would fail in the same way: key, permission, model, redirect, form, quota."""
    if isinstance(error, openai.APIStatusError):
        quota_spent = error.status_code == 429 and "insufficient_quota" in (error.code, error.type)
        return (
            error.response.is_redirect
            or quota_spent
            or (400 <= error.status_code < 500 and error.status_code not in (408, 409, 413, 429))
        )
    return False


def is_transient(error: openai.APIError) -> bool:
    """Return True if repeating the request may help: 408, 409, 429, 5xx, a broken connection or a timeout."""
    if isinstance(error, openai.APIStatusError):
        transient = error.status_code in (408, 409, 429) or error.status_code >= 500
        return transient and not is_fatal(error)
    return isinstance(error, openai.APIConnectionError) and not is_refused(error)


def is_refused(error: openai.APIError) -> bool:
    """Return True if the response was larger than its limit, or in an encoding that was not asked for."""
    return any(isinstance(each, ResponseRefusedError) for each in (error, error.__cause__))


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
    if isinstance(error, openai.APIStatusError) and error.response.is_redirect:
        target = urlsplit(redact_reply(error.response.headers.get("location", ""), key))
        return LLMError(
            f"{endpoint} sends requests on to another address (HTTP {status}: {target.scheme or 'same'}"
            f"://{target.netloc or 'host'}). Redirects are not followed, because the new address would receive the "
            "transcripts. If you trust it, set llm.base_url to it"
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
    if status in (400, 422) and "input_audio" in detail:
        return LLMError(
            f"{endpoint} does not accept the recording (HTTP {status}: {detail}). Set llm.audio_form=audio_url, or "
            "choose a model that hears"
        )
    if status in (400, 422):
        return LLMError(
            f"{endpoint} does not accept the request (HTTP {status}: {detail}). Check llm.model and "
            "the parameters llm.temperature, llm.max_tokens, llm.seed and llm.top_logprobs (0: no logprobs)"
        )
    if status is not None:
        return LLMError(
            f"{endpoint} fails (HTTP {status}: {detail}). The answers so far are kept: run the same command again later"
        )
    if isinstance(error, openai.APIError) and is_refused(error):
        return LLMError(f"{endpoint} {_detail(error, key)}: it is no service for this, or a fault. Check llm.base_url")
    if isinstance(error, openai.APITimeoutError):
        return LLMError(f"{endpoint} does not answer in time. Raise llm.timeout_s or lower llm.max_concurrency")
    return LLMError(
        f"{endpoint} cannot be reached ({detail}). Check llm.base_url and the network, or run with llm=local"
    )


def _detail(error: openai.OpenAIError, key: str | None) -> str:
    """Return the server's own message on one line, redacted and shortened."""
    message: Any = getattr(error, "body", None)
    if isinstance(message, list) and message:  # Google's endpoint sends a list with one error
        message = message[0]
        message = message.get("error", message) if isinstance(message, dict) else message
    if isinstance(message, dict):
        message = message.get("message") or message.get("error")
    if isinstance(error, openai.APIConnectionError) and error.__cause__ is not None:
        message = error.__cause__
    line = " ".join(redact_reply(str(message or error), key).split())
    return line if len(line) <= DETAIL_CHARS else line[: DETAIL_CHARS - 1] + "…"
