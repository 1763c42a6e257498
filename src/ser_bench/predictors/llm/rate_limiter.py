"""How fast requests may be sent: requests and tokens per minute, as set or as the service says in its headers.

Sending is spread evenly over the minute. A burst at its start and a wait at its end would be refused by the services
that refill their limits continuously, as most do.
"""

from __future__ import annotations

import asyncio
import email.utils
import math
import random
import time
from collections.abc import Awaitable, Callable, Mapping

BURST_S = 0.3
"""So much of the allowance that was not used is kept: what a busy machine sleeps too long."""
SHARE = 0.97
"""Of a limit that was learnt: clocks and networks are not exact."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
"""Backoff where the service does not say how long to wait: doubled every time."""
LIMIT_HEADERS = ("x-ratelimit-limit-requests", "x-ratelimit-limit-tokens")


class Allowance:
    """So many units per minute, given out evenly; None: as many as one likes."""

    def __init__(self, per_minute: float | None) -> None:
        self.per_minute = per_minute
        self._next = 0.0

    def reserve(self, now: float, units: float) -> float:
        """When so many units may be used; they are taken."""
        if self.per_minute is None:
            return now
        at = max(self._next, now - BURST_S)
        self._next = at + units * 60.0 / self.per_minute
        return max(at, now)

    def restart(self, at: float) -> None:
        """Forget what was reserved; go on from then."""
        self._next = at


class Pace:
    """Tells every request when it may go.

    Args:
        requests_per_minute: None: learnt from headers.
        tokens_per_minute: likewise.
    """

    def __init__(
        self,
        requests_per_minute: float | None,
        tokens_per_minute: float | None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.requests, self.tokens = Allowance(requests_per_minute), Allowance(tokens_per_minute)
        self._set = (requests_per_minute is not None, tokens_per_minute is not None)
        self._paused_until = 0.0
        self._clock, self._sleep = clock, sleep

    async def turn(self, tokens: int) -> None:
        """Wait until a request of so many tokens may go."""
        while True:
            wait_s = self._paused_until - self._clock()
            if wait_s > 0:
                await self._sleep(wait_s)
                continue
            now = self._clock()
            at = max(self.requests.reserve(now, 1), self.tokens.reserve(now, tokens))
            if at > now:
                await self._sleep(at - now)
            if self._paused_until <= self._clock():
                return  # else the service asked for a pause meanwhile, and what was reserved is void

    def pause(self, seconds: float) -> None:
        """Nobody goes for so long: the service said so."""
        until = self._clock() + seconds
        if until > self._paused_until:
            self._paused_until = until
            self.requests.restart(until)
            self.tokens.restart(until)

    def learn(self, headers: Mapping[str, str]) -> None:
        """Take the limits from a response, where they were not set."""
        for allowance, is_set, name in zip((self.requests, self.tokens), self._set, LIMIT_HEADERS, strict=True):
            limit = _number(headers.get(name))
            if not is_set and limit is not None and limit > 0:
                allowance.per_minute = limit * SHARE


def retry_after_s(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds that a service asks to wait (`retry-after-ms`, `retry-after` in seconds or as a date); None: it does not.

    >>> retry_after_s({"retry-after": "1.5"}), retry_after_s({"retry-after-ms": "250"}), retry_after_s({})
    (1.5, 0.25, None)
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return max(0.0, milliseconds / 1000)
    said = headers.get("retry-after")
    seconds = _number(said)
    if seconds is not None or said is None:
        return None if seconds is None else max(0.0, seconds)
    date = email.utils.parsedate_tz(said)
    if date is None:
        return None
    return max(0.0, email.utils.mktime_tz(date) - (time.time() if now is None else now))


def backoff_s(retry: int) -> float:
    """Seconds before the `retry`-th repetition (from 1): doubled every time, with jitter so that many do not meet."""
    longest: float = min(FIRST_WAIT_S * 2 ** (retry - 1), LONGEST_WAIT_S)
    return longest * random.uniform(0.5, 1.0)


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
