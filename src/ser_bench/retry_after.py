"""The wait that an HTTP server asks for in its response headers."""

from __future__ import annotations

import email.utils
import math
import time
from collections.abc import Mapping


def retry_after_s(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Return the seconds until a request may be repeated, or None if the headers do not state them.

    `retry-after-ms` (milliseconds, sent by OpenAI) takes precedence over `retry-after` (seconds, or a date; RFC 9110,
    section 10.2.3). A time in the past is 0.

    Args:
        headers: of the response; names in lower case, or a mapping that ignores case.
        now: seconds since the epoch, for dates; None: the current time.

    >>> retry_after_s({"retry-after": "1.5"}), retry_after_s({"retry-after-ms": "250"}), retry_after_s({})
    (1.5, 0.25, None)
    """
    milliseconds = finite_number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return max(0.0, milliseconds / 1000)
    value = headers.get("retry-after")
    seconds = finite_number(value)
    if seconds is not None or value is None:
        return None if seconds is None else max(0.0, seconds)
    date = email.utils.parsedate_tz(value)
    if date is None:
        return None
    return max(0.0, email.utils.mktime_tz(date) - (time.time() if now is None else now))


def finite_number(value: str | None) -> float | None:
    """Return the number in a header, or None if it is absent, no number, infinite or NaN."""
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None
