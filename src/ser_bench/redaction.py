"""Removal of secrets from text before it is logged, stored or shown."""

from __future__ import annotations

import os
import re

SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL", re.IGNORECASE)
SHORTEST_SECRET = 8
"""Characters. A shorter value of an environment variable is kept, because hiding it would remove ordinary words."""
KEY_PATTERN = re.compile(r"\b(sk|pk|key)-[A-Za-z0-9_\-*]{6,}")
"""What API keys look like."""
HIDDEN = "***"
"""Stands in the text where a secret was."""


def redact(text: str, key: str | None = None) -> str:
    """Return the text without secrets.

    Removed are: `key`, the values of environment variables whose names contain KEY, TOKEN, SECRET, PASSWORD or
    CREDENTIAL, and user names and passwords in URLs.

    Args:
        text: any text of this program, such as a configuration, a tag or an error message.
        key: an API key in use; None if there is none.
    """
    if key:
        text = text.replace(key, HIDDEN)
    for name, value in os.environ.items():
        if len(value) >= SHORTEST_SECRET and SECRET_NAME.search(name):
            text = text.replace(value, HIDDEN)
    return without_credentials(text)


def redact_reply(text: str, key: str | None = None) -> str:
    """Return text that a server sent without secrets and without anything that looks like an API key.

    Some servers repeat the key that they refuse, shortened or in part. Text of this program passes `redact` instead:
    a path or a run name may look like a key.

    >>> redact_reply("Incorrect API key provided: sk-abcdef12")
    'Incorrect API key provided: ***'
    """
    return KEY_PATTERN.sub(HIDDEN, redact(text, key))


def without_credentials(text: str) -> str:
    """Return the text without the user name and password of every URL in it.

    >>> without_credentials("http://me:secret@host:5000/api")
    'http://***@host:5000/api'
    """
    return re.sub(r"(?<=://)[^/@\s]+(?=@)", HIDDEN, text)
