"""Limits on requests and tokens per minute, as configured or as the endpoint states them in its headers.

Requests are spread evenly over the minute. Most endpoints refill their limits continuously, and would refuse a burst at
the start of every minute.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping

from ser_bench.retry_after import finite_number

BURST_S = 0.3
"""Unused capacity of this many seconds is kept; it makes up for a busy machine that sleeps too long."""
SHARE = 0.97
"""Share of a limit from headers that is used, because clocks and network delays are not exact."""
FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 0.5, 30.0
"""Backoff if the endpoint does not state how long to wait; doubled with every retry."""
LIMIT_HEADERS = ("x-ratelimit-limit-requests", "x-ratelimit-limit-tokens")


class LeakyBucket:
    """Hands out a number of units per minute, evenly over time.

    Args:
        per_minute: units per minute; None: no limit.
    """

    def __init__(self, per_minute: float | None) -> None:
        self.per_minute = per_minute
        self._next = 0.0

    def reserve(self, now: float, units: float) -> float:
        """Reserve units, and return the time from which they may be used."""
        if self.per_minute is None:
            return now
        start = max(self._next, now - BURST_S)
        self._next = start + units * 60.0 / self.per_minute
        return max(start, now)

    def restart(self, start: float) -> None:
        """Discard all reservations; hand out units again from this time."""
        self._next = start


class RateLimiter:
    """Delays requests so that they keep within the limits of an endpoint.

    Args:
        requests_per_minute: limit on requests; None: taken from headers, if the endpoint sends them.
        tokens_per_minute: limit on tokens of prompts and answers; None: likewise.
        clock: returns the time, seconds.
        sleep: waits a number of seconds.
    """

    def __init__(
        self,
        requests_per_minute: float | None,
        tokens_per_minute: float | None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.requests, self.tokens = LeakyBucket(requests_per_minute), LeakyBucket(tokens_per_minute)
        self._is_configured = (requests_per_minute is not None, tokens_per_minute is not None)
        self._paused_until = 0.0
        self._clock, self._sleep = clock, sleep

    async def wait_turn(self, tokens: int) -> None:
        """Wait until a request with this number of tokens may be sent."""
        while True:
            wait_s = self._paused_until - self._clock()
            if wait_s > 0:
                await self._sleep(wait_s)
                continue
            now = self._clock()
            start = max(self.requests.reserve(now, 1), self.tokens.reserve(now, tokens))
            if start > now:
                await self._sleep(start - now)
            if self._paused_until <= self._clock():
                return  # otherwise a pause began meanwhile and discarded the reservation

    def pause(self, seconds: float) -> None:
        """Hold all requests for this time, because the endpoint asked for it; a longer pause stays in force."""
        until = self._clock() + seconds
        if until > self._paused_until:
            self._paused_until = until
            self.requests.restart(until)
            self.tokens.restart(until)

    def update_limits(self, headers: Mapping[str, str]) -> None:
        """Take limits that are not configured from the headers of a response.

        A limit below 1 is ignored: the next request would wait for longer than a minute, or for ever.
        """
        buckets = (self.requests, self.tokens)
        for bucket, is_configured, name in zip(buckets, self._is_configured, LIMIT_HEADERS, strict=True):
            limit = finite_number(headers.get(name))
            if not is_configured and limit is not None and limit >= 1:
                bucket.per_minute = limit * SHARE


def backoff_s(retry: int) -> float:
    """Return the seconds before the `retry`-th retry (from 1): exponential, with jitter between concurrent ones."""
    longest: float = min(FIRST_BACKOFF_S * 2 ** (retry - 1), LONGEST_BACKOFF_S)
    return longest * random.uniform(0.5, 1.0)
