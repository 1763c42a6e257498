"""The wait that an HTTP server asks for in its response headers."""

from __future__ import annotations

import email.utils
import math
import re
import time
from collections.abc import Mapping
from datetime import UTC

LONGEST_S = 366 * 86_400.0
"""No server means a longer wait; a header that asks for one holds an error, such as a year of five digits."""
NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?")


def retry_after_s(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Return the seconds until a request may be repeated, or None if the headers do not state them.

    `retry-after-ms` (milliseconds, sent by OpenAI) takes precedence over `retry-after` (seconds, or a date; RFC 9110,
    section 10.2.3). A time in the past is 0. What is malformed, or asks for more than `LONGEST_S`, is not stated. No
    text in these headers raises an error.

    Args:
        headers: of the response; names in lower case, or a mapping that ignores case.
        now: seconds since the epoch, for dates; None: the current time.

    >>> retry_after_s({"retry-after": "1.5"}), retry_after_s({"retry-after-ms": "250"}), retry_after_s({})
    (1.5, 0.25, None)
    """
    milliseconds = finite_number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return _plausible(milliseconds / 1000)
    value = headers.get("retry-after")
    seconds = finite_number(value)
    if seconds is not None or value is None:
        return None if seconds is None else _plausible(seconds)
    try:
        date = email.utils.parsedate_to_datetime(value)
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        return _plausible(date.timestamp() - (time.time() if now is None else now))
    except (ValueError, OverflowError, TypeError, IndexError):  # the parser of the standard library raises all of these
        return None


def _plausible(seconds: float) -> float | None:
    return max(0.0, seconds) if seconds <= LONGEST_S else None


def finite_number(value: str | None) -> float | None:
    """Return the number in a header, or None if it is absent, or not a number in plain ASCII digits.

    `float` alone would also accept "1_0", "1e9", "nan" and digits of other scripts.
    """
    number = float(value) if value is not None and NUMBER.fullmatch(value.strip(" \t")) else math.inf
    return number if math.isfinite(number) else None
