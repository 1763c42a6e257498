"""Removal of secrets from text before it is logged, stored or shown.

Secrets are the values that `register_secret` was given (API keys in use), the values of environment variables whose
names look like those of secrets, and user names, passwords and keys in URLs. The functions differ in how much more they
remove:

- `redact`: secrets, in plain and in the usual encodings. For files that are read again.
- `redact_message`: also pieces of registered secrets. For messages, log records and tracebacks.
- `redact_reply`: also whatever looks like an API key. For text that a server sent.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import traceback
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL", re.IGNORECASE)
SHORTEST_SECRET = 8
"""Characters. A shorter secret is kept unless it is passed as `key`: hiding it would remove ordinary words."""
PIECE = 8
"""Characters. A shorter piece of a secret is kept."""
KEY_PATTERN = re.compile(r"\b(sk|pk|key)-[A-Za-z0-9_\-*]{6,}")
"""What API keys look like."""
HIDDEN = "***"
"""Stands in the text where a secret was."""
USER_INFO = re.compile(
    r"""(?<=://)(?:
        [^/?\#\s"'<>\\]+                                              # everything up to the last @ before the path
      | [^/:\[\]\s"'<>\\]+:(?!\d*(?:[/?\#\s"'<>\\]|$))[^\s"'<>\\]*    # a password with / or another reserved character
    )(?=@)""",
    re.VERBOSE,
)
"""User name and password in a URL, also where a password contains characters that a URL should encode."""
QUERY_SECRET = re.compile(
    r"""(
        [?&;](?!viewStateShareKey=)      # names a saved view of MLflow
        (?: [^=&;\s"'<>\\]*(?:key|token|secret|passw|pwd|credential|signature)[^=&;\s"'<>\\]* | sig | auth | code )
        =
    )[^&;\s"'<>\\#]+""",
    re.IGNORECASE | re.VERBOSE,
)
"""A value in the query of a URL whose name is that of a secret (`?api-key=…`)."""
HIDDEN_VALUE = re.compile(rf"^(\s*(?:- )*(?:[^\s#'\"][^:\n]*: )?)({re.escape(HIDDEN)}[^\n]*)$", re.MULTILINE)
"""A line of block-style YAML whose value begins with `HIDDEN`."""
TEXT_FILES = (".json", ".yaml", ".yml", ".txt", ".md", ".log", ".csv")

_registered: set[str] = set()


def register_secret(secret: str | None) -> None:
    """Remove this value from all texts from now on, and from log records; None and short values are ignored."""
    if secret and len(secret) >= SHORTEST_SECRET:
        _registered.add(secret)
        redact_logs()


def forget_secrets() -> None:
    """Forget what was registered; for tests, in which one process uses many keys."""
    _registered.clear()


def redact(text: str, key: str | None = None) -> str:
    """Return the text without secrets.

    Args:
        text: any text of this program, such as a configuration, a tag or an error message.
        key: an API key in use, of any length; None if there is none.
    """
    for secret in _secrets(key):
        for form in _forms(secret):
            text = text.replace(form, HIDDEN)
    for name, value in os.environ.items():
        if len(value) >= SHORTEST_SECRET and SECRET_NAME.search(name):
            text = text.replace(value, HIDDEN)
    return without_credentials(text)


def redact_message(text: str, key: str | None = None) -> str:
    """Return the text without secrets and without pieces of registered secrets.

    >>> redact_message("refused: abcdefgh...", key="0123abcdefgh4567")
    'refused: ***...'
    """
    text = redact(text, key)
    for secret in _secrets(key):
        text = _without_pieces(text, secret)
    return text


def redact_reply(text: str, key: str | None = None) -> str:
    """Return text that a server sent without secrets, pieces of secrets and anything that looks like an API key.

    Some servers repeat the key that they refuse, shortened or in part. Text of this program does not pass this
    function: a path or a run name may look like a key.

    >>> redact_reply("Incorrect API key provided: sk-abcdef12")
    'Incorrect API key provided: ***'
    """
    return KEY_PATTERN.sub(HIDDEN, redact_message(text, key))


def without_credentials(text: str) -> str:
    """Return the text without the user name, password and keys of every URL in it.

    >>> without_credentials("http://me:secret@host:5000/api?api-key=1234&version=2")
    'http://***@host:5000/api?api-key=***&version=2'
    """
    if "://" not in text:
        return text
    return QUERY_SECRET.sub(rf"\1{HIDDEN}", USER_INFO.sub(HIDDEN, text))


def credentials_of(url: str) -> list[str]:
    """Return the user names, passwords and keys that `without_credentials` removes from a URL.

    >>> credentials_of("http://me:secret@host/?api-key=1234")
    ['me:secret', 'secret', '1234']
    """
    found = []
    for user_info in USER_INFO.findall(url):
        found += [user_info, *([user_info.partition(":")[2]] if ":" in user_info else [])]
    found += [match.group().partition("=")[2] for match in QUERY_SECRET.finditer(url)]
    return [secret for secret in found if secret.strip(":") not in ("", HIDDEN)]


def redact_value(value: Any) -> Any:
    """Return a value of plain JSON types with every text in it redacted as the reply of a server."""
    if isinstance(value, str):
        return redact_reply(value)
    if isinstance(value, dict):
        return {redact_value(key): redact_value(item) for key, item in value.items()}
    return [redact_value(item) for item in value] if isinstance(value, (list, tuple)) else value


def redact_error(error: BaseException) -> None:
    """Remove secrets from the messages of an error and of the errors that led to it, which a traceback shows."""
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        current = pending.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        pending += [current.__cause__, current.__context__, *getattr(current, "exceptions", ())]
        current.args = tuple(redact_message(item) if isinstance(item, str) else item for item in current.args)
        for i, note in enumerate(getattr(current, "__notes__", [])):
            current.__notes__[i] = redact_message(note)
        text = str(current)
        if text != redact_message(text):  # the text is not made of `args` alone
            current.args = (redact_message(text),)


def redact_yaml(text: str) -> str:
    """Return block-style YAML without secrets. A value that begins with `HIDDEN` is quoted, else YAML reads an alias.

    >>> print(redact_yaml("model: 0123456789".replace("0123456789", HIDDEN)))
    model: '***'
    """

    def quoted(match: re.Match[str]) -> str:
        return match[1] + "'" + match[2].replace("'", "''") + "'"

    return HIDDEN_VALUE.sub(quoted, redact(text))


def redact_files(folder: Path) -> None:
    """Remove secrets from the text files of a folder (`TEXT_FILES`) and of its subfolders."""
    for path in sorted(folder.rglob("*")):
        if path.suffix in TEXT_FILES and path.is_file():
            text = path.read_text(encoding="utf-8", errors="surrogateescape")
            clean = redact_yaml(text) if path.suffix in (".yaml", ".yml") else redact(text)
            if clean != text:
                path.write_text(clean, encoding="utf-8", errors="surrogateescape")


class RedactingRecordFactory:
    """Makes log records whose message and traceback hold no secret; all loggers and handlers of the process use it.

    Args:
        make: the factory that was in use before.
    """

    def __init__(self, make: Any) -> None:
        self._make = make

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        """Return a record with the arguments of `logging.LogRecord`."""
        record: logging.LogRecord = self._make(*args, **kwargs)
        try:
            message = record.getMessage()
        except Exception:  # the arguments do not fit the format: logging reports that
            return record
        clean = redact_message(message)
        if clean != message:
            record.msg, record.args = clean, None
        if record.exc_info and record.exc_info[1] is not None:
            text = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
            clean = redact_message(text)
            if clean != text:
                record.exc_text = clean  # a formatter uses this text instead of the exception, where it is set
        return record


def redact_logs() -> None:
    """Remove secrets from every log record that this process makes from now on."""
    make = logging.getLogRecordFactory()
    if not isinstance(make, RedactingRecordFactory):
        logging.setLogRecordFactory(RedactingRecordFactory(make))


def _secrets(key: str | None) -> Iterable[str]:
    """Return the key and the registered secrets, longest first, because one may contain another."""
    return sorted(_registered | ({key} if key else set()), key=len, reverse=True)


@lru_cache(maxsize=256)
def _forms(secret: str) -> tuple[str, ...]:
    """Return the spellings of a secret: as it is, in JSON, in a URL, and in base64 at any position of a text."""
    forms = {secret, json.dumps(secret)[1:-1], quote(secret, safe=""), quote(secret), quote_plus(secret)}
    forms |= {re.sub("%[0-9A-F]{2}", lambda match: match.group().lower(), form) for form in forms}
    if len(secret) >= SHORTEST_SECRET:
        raw = secret.encode()
        for before in range(3):
            # Base64 turns three bytes into four characters; those that also depend on other bytes are left out.
            first, last = (0, 2, 3)[before], (before + len(raw)) * 8 // 6
            encoded = base64.b64encode(b"\0" * before + raw).decode()[first:last]
            forms |= {encoded, encoded.replace("+", "-").replace("/", "_")}
    return tuple(sorted(forms, key=len, reverse=True))


@lru_cache(maxsize=256)
def _grams(secret: str) -> frozenset[str]:
    """Return every piece of `PIECE` characters of every spelling of a secret."""
    return frozenset(form[i : i + PIECE] for form in _forms(secret) for i in range(len(form) - PIECE + 1))


def _without_pieces(text: str, secret: str) -> str:
    """Return the text with `HIDDEN` for every passage that is part of a spelling of the secret."""
    starts: set[int] = set()
    for gram in _grams(secret):
        start = text.find(gram)
        while start >= 0:
            starts.add(start)
            start = text.find(gram, start + 1)
    parts: list[str] = []
    end = 0
    for start in sorted(starts):
        if start > end or not parts:
            parts += [text[end:start], HIDDEN]
        end = start + PIECE
    return "".join(parts) + text[end:]
