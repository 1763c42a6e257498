"""Limits on requests and tokens per minute, with a clock that advances only while a request waits."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from ser_bench.predictors.llm import rate_limiter
from ser_bench.predictors.llm.rate_limiter import RateLimiter


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


def turns(limiter: RateLimiter, clock: Clock, count: int, tokens: int = 10) -> list[float]:
    """Return when each of `count` consecutive requests may be sent, seconds from now."""

    async def wait_for_all() -> list[float]:
        began, times = clock.now, []
        for _ in range(count):
            await limiter.wait_turn(tokens)
            times.append(clock.now - began)
        return times

    return asyncio.run(wait_for_all())


def make(requests: float | None = None, tokens: float | None = None) -> tuple[RateLimiter, Clock]:
    clock = Clock()
    return RateLimiter(requests, tokens, clock, clock.sleep), clock


def test_without_limits_no_request_waits():
    limiter, clock = make()
    assert turns(limiter, clock, 100) == [0.0] * 100


@pytest.mark.parametrize(("requests", "tokens"), [(120.0, None), (None, 1_200.0), (120.0, 1_000_000.0)])
def test_spread_evenly_over_the_minute(requests, tokens):
    limiter, clock = make(requests, tokens)
    times = turns(limiter, clock, 120)
    assert times[-1] == pytest.approx(60.0, abs=1.6)
    assert all(b - a <= 0.5 + 1e-9 for a, b in itertools.pairwise(times)), "no burst, no gap"
    assert sum(t < 10 for t in times) <= 120 * 11 / 60 + 1


def test_unused_capacity_is_not_saved_for_later():
    limiter, clock = make(requests=60.0)
    turns(limiter, clock, 1)
    clock.now += 600.0
    assert turns(limiter, clock, 5)[-1] >= 3.0


def test_limits_come_from_headers_unless_configured():
    headers = {"x-ratelimit-limit-requests": "600", "x-ratelimit-limit-tokens": "30000"}
    limiter, _ = make()
    limiter.update_limits(headers)
    assert (limiter.requests.per_minute, limiter.tokens.per_minute) == (
        600 * rate_limiter.SHARE,
        30_000 * rate_limiter.SHARE,
    )
    configured, _ = make(requests=5.0)
    configured.update_limits(headers)
    assert (configured.requests.per_minute, configured.tokens.per_minute) == (5.0, 30_000 * rate_limiter.SHARE)


@pytest.mark.parametrize("value", ["", "many", "0", "-5", "nan", "inf", "0.001", "\u00b2", "1_0"])
def test_malformed_headers_are_ignored(value):
    limiter, _ = make()
    limiter.update_limits({"x-ratelimit-limit-requests": value})
    assert limiter.requests.per_minute is None


def test_pause_delays_all_and_spacing_stays_even():
    limiter, clock = make(requests=60.0)
    turns(limiter, clock, 2)
    limiter.pause(30.0)
    limiter.pause(5.0)  # a shorter one does not shorten it
    times = turns(limiter, clock, 3)
    assert times == pytest.approx([30.0, 31.0, 32.0], abs=rate_limiter.BURST_S + 1e-9) and times[0] >= 30.0


def test_request_that_waits_when_a_pause_begins_waits_longer():
    limiter, clock = make(requests=60.0)
    turns(limiter, clock, 2)

    async def sleep(seconds: float) -> None:
        clock.now += seconds
        if not called:
            called.append(clock.now)
            limiter.pause(20.0)

    called: list[float] = []
    limiter._sleep = sleep
    asyncio.run(limiter.wait_turn(1))
    assert called and clock.now >= called[0] + 20.0


def test_backoff_doubles_with_jitter_up_to_a_limit():
    for retry, longest in [(1, 0.5), (2, 1.0), (3, 2.0), (12, rate_limiter.LONGEST_BACKOFF_S)]:
        drawn = [rate_limiter.backoff_s(retry) for _ in range(200)]
        assert all(longest / 2 <= value <= longest for value in drawn)
        assert max(drawn) - min(drawn) > longest / 4
