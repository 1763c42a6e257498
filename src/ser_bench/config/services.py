"""The services of language models and embeddings that this process may ask, and their addresses.

A stored run names a service and the environment variable with its key. Whoever can write to a shared store can edit
both. Commands that restore runs therefore ask only what the user's own configuration names (`only_own_services`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ser_bench.config.schema import Config
from ser_bench.config.secret_words import is_variable_name
from ser_bench.errors import LLMError
from ser_bench.redaction import register_secret, without_credentials

OPENAI_URL = "https://api.openai.com/v1"
URL_VARIABLE = "OPENAI_BASE_URL"
"""Environment variable that replaces `OPENAI_URL`."""

_own_services: list[tuple[str, str | None]] | None = None
"""(address, name of the variable with the key) of each service that may be asked; None: any."""


def effective_url(base_url: str | None) -> str:
    """Return the URL that a client uses: this one, else `$OPENAI_BASE_URL`, else OpenAI's."""
    return base_url or os.environ.get(URL_VARIABLE, "").strip() or OPENAI_URL


@contextmanager
def only_own_services(own: Config) -> Iterator[None]:
    """Ask only the services of the user's own configuration inside a `with` block, also in other threads."""
    global _own_services
    before = _own_services
    services = []
    if not own.llm.local or own.llm.base_url is not None:
        services.append((effective_url(own.llm.base_url), own.llm.api_key_env))
    if own.text.name == "openai":
        services.append((effective_url(own.text.base_url), own.text.api_key_env or None))
    _own_services = services
    try:
        yield
    finally:
        _own_services = before


def own_service(base_url: str | None, api_key_env: str | None, group: str = "llm") -> str:
    """Return the effective URL of a service that may be asked.

    A password that was left out of a stored address is put back from the user's own configuration.

    Args:
        base_url: the address in the configuration; None: as `effective_url` says.
        api_key_env: name of the environment variable whose value would be sent as the key; None: no key is sent.
        group: the configuration group, for the message.

    Raises:
        LLMError: the user's own configuration does not name this address and this variable.
    """
    url = effective_url(base_url)
    if _own_services is None:
        return url
    for own_url, own_variable in _own_services:
        if _comparable(own_url) == _comparable(url) and api_key_env in (None, own_variable):
            return own_url
    named = " or ".join(f"{_shown(own)} with the key in {variable}" for own, variable in _own_services)
    choice, no_key = ("text=openai ", "") if group == "text" else ("", "null")
    if api_key_env and not is_variable_name(api_key_env):
        register_secret(api_key_env)  # older versions stored a key that was given in place of the name
        api_key_env = "NAME_OF_A_VARIABLE"
    with_key = f"with the key in {api_key_env}" if api_key_env else "without a key"
    raise LLMError(
        f"the stored run asks {_shown(url)} {with_key}, and your own configuration "
        f"names {named or 'no service'}. Nothing was sent. If you trust this address, say so: "
        f"{choice}{group}.base_url={_shown(url)} {group}.api_key_env={api_key_env or no_key}"
    )


def _comparable(url: str) -> str:
    return without_credentials(url).rstrip("/")


def _shown(text: str) -> str:
    """Return a text of a stored configuration without passwords and without characters that control a terminal."""
    return "".join(char if char.isprintable() else "?" for char in without_credentials(text))[:200]
