"""Requests and tokens per minute, in a time that passes only when somebody waits."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from ser_bench.predictors.llm import rate_limiter
from ser_bench.predictors.llm.rate_limiter import Pace, retry_after_s


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


def turns(paced: Pace, clock: Clock, count: int, tokens: int = 10) -> list[float]:
    """When `count` requests that ask one after another may go, seconds from now."""

    async def all_of_them() -> list[float]:
        began, times = clock.now, []
        for _ in range(count):
            await paced.turn(tokens)
            times.append(clock.now - began)
        return times

    return asyncio.run(all_of_them())


def make(requests: float | None = None, tokens: float | None = None) -> tuple[Pace, Clock]:
    clock = Clock()
    return Pace(requests, tokens, clock, clock.sleep), clock


def test_without_limits_nobody_waits():
    paced, clock = make()
    assert turns(paced, clock, 100) == [0.0] * 100


@pytest.mark.parametrize(("requests", "tokens"), [(120.0, None), (None, 1_200.0), (120.0, 1_000_000.0)])
def test_spread_evenly_over_the_minute(requests, tokens):
    paced, clock = make(requests, tokens)
    times = turns(paced, clock, 120)
    assert times[-1] == pytest.approx(60.0, abs=1.6)
    assert all(b - a <= 0.5 + 1e-9 for a, b in itertools.pairwise(times)), "no burst, no gap"
    assert sum(t < 10 for t in times) <= 120 * 11 / 60 + 1


def test_what_was_not_used_for_long_is_lost():
    paced, clock = make(requests=60.0)
    turns(paced, clock, 1)
    clock.now += 600.0
    assert turns(paced, clock, 5)[-1] >= 3.0


def test_learns_from_headers_unless_it_was_told():
    headers = {"x-ratelimit-limit-requests": "600", "x-ratelimit-limit-tokens": "30000"}
    paced, _ = make()
    paced.learn(headers)
    assert (paced.requests.per_minute, paced.tokens.per_minute) == (
        600 * rate_limiter.SHARE,
        30_000 * rate_limiter.SHARE,
    )
    told, _ = make(requests=5.0)
    told.learn(headers)
    assert (told.requests.per_minute, told.tokens.per_minute) == (5.0, 30_000 * rate_limiter.SHARE)


@pytest.mark.parametrize("value", ["", "many", "0", "-5", "nan", "inf"])
def test_odd_headers_teach_nothing(value):
    paced, _ = make()
    paced.learn({"x-ratelimit-limit-requests": value})
    assert paced.requests.per_minute is None


def test_pause_holds_all_and_then_goes_on_evenly():
    paced, clock = make(requests=60.0)
    turns(paced, clock, 2)
    paced.pause(30.0)
    paced.pause(5.0)  # a shorter one does not shorten it
    times = turns(paced, clock, 3)
    assert times == pytest.approx([30.0, 31.0, 32.0], abs=rate_limiter.BURST_S + 1e-9) and times[0] >= 30.0


def test_who_waited_while_the_pause_was_called_waits_on():
    paced, clock = make(requests=60.0)
    turns(paced, clock, 2)

    async def sleep(seconds: float) -> None:
        clock.now += seconds
        if not called:
            called.append(clock.now)
            paced.pause(20.0)

    called: list[float] = []
    paced._sleep = sleep
    asyncio.run(paced.turn(1))
    assert called and clock.now >= called[0] + 20.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "Tue, 01 Jan 2030 00:00:20 GMT"}, 20.0),
        ({"retry-after": "Mon, 31 Dec 2029 00:00:20 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
    ],
)
def test_retry_after_in_all_its_forms(headers, seconds):
    assert retry_after_s(headers, now=1_893_456_000.0) == seconds


def test_backoff_doubles_with_jitter_up_to_a_limit():
    for retry, longest in [(1, 0.5), (2, 1.0), (3, 2.0), (12, rate_limiter.LONGEST_WAIT_S)]:
        drawn = [rate_limiter.backoff_s(retry) for _ in range(200)]
        assert all(longest / 2 <= value <= longest for value in drawn)
        assert max(drawn) - min(drawn) > longest / 4
