"""Proxies in the environment that no HTTP client can be made with, explained in one line."""

from __future__ import annotations

import os

from ser_bench.redaction import redact_error, redact_message

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
DETAIL_CHARS = 200
"""Longest quotation of a library's message."""


def explain_client_error(error: Exception, settings: str = "") -> str:
    """Return why the construction of an HTTP client failed, and what to do, in one line without passwords.

    Args:
        error: what the constructor raised. httpx raises `ImportError` for a SOCKS proxy without the package socksio and
            `ValueError` for other proxies that it cannot use.
        settings: other settings that may be wrong, for example "llm.base_url".
    """
    redact_error(error)
    proxies = [name for upper in VARIABLES for name in (upper, upper.lower()) if os.environ.get(name)]
    if isinstance(error, ImportError) and any(os.environ[name].startswith("socks") for name in proxies):
        return (
            f"a SOCKS proxy ({', '.join(proxies)}) needs the package socksio: pip install socksio. To connect without "
            f"the proxy: unset {' '.join(proxies)}"
        )
    line = " ".join(redact_message(str(error)).split())[:DETAIL_CHARS]
    suspects = [*([settings] if settings else []), *([f"the proxy ({', '.join(proxies)})"] if proxies else [])]
    return f"no connection can be set up ({line})" + (f". Check {' or '.join(suspects)}" if suspects else "")
