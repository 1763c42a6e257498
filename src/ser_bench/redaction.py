"""What must never reach a tracking store: keys and passwords."""

from __future__ import annotations

import os
import re

SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL", re.IGNORECASE)
SHORTEST_SECRET = 8
"""Characters; a shorter value is no key, and hiding it would blot out ordinary words."""
HIDDEN = "***"


def without_credentials(text: str) -> str:
    """The text with user and password taken out of every URL.

    >>> without_credentials("http://me:secret@host:5000/api")
    'http://***@host:5000/api'
    """
    return re.sub(r"(?<=://)[^/@\s]+(?=@)", HIDDEN, text)


def redact(text: str) -> str:
    """The text without credentials in URLs and without the value of any environment variable named like a secret."""
    for name, value in os.environ.items():
        if len(value) >= SHORTEST_SECRET and SECRET_NAME.search(name):
            text = text.replace(value, HIDDEN)
    return without_credentials(text)
