"""How far the questions are: a bar in a terminal, a line now and then in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

from tqdm import tqdm

log = logging.getLogger(__name__)

LINE_EVERY_S = 30.0


@dataclass
class Tally:
    """What it took to get the answers of one call.

    Attributes:
        cached: questions answered from the cache.
        requests: HTTP requests sent, retries included.
        retried: of these, retries.
        paid_usd: US dollars for the answers that came in this call.
        reasons: why questions have no label → how many.
    """

    cached: int = 0
    requests: int = 0
    retried: int = 0
    paid_usd: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.cached + other.cached,
            self.requests + other.requests,
            self.retried + other.retried,
            self.paid_usd + other.paid_usd,
            self.reasons + other.reasons,
        )


class Progress:
    """Shows a tally while it grows; use it in a `with` block.

    Args:
        total: questions.
        done: of these, answered before it began.
    """

    def __init__(self, total: int, done: int) -> None:
        self._total, self._done, self._before = total, done, done
        self._began = self._said = time.monotonic()
        self._bar = tqdm(total=total, initial=done, desc="language model", unit="clip", disable=None)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def one_more(self, tally: Tally) -> None:
        """One question more has its answer, or none for good."""
        self._done += 1
        self._bar.update()
        state = {"cached": tally.cached, "retried": tally.retried, "usd": f"{tally.paid_usd:.2f}"} | tally.reasons
        self._bar.set_postfix(state, refresh=False)
        now = time.monotonic()
        if not sys.stderr.isatty() and now - self._said >= LINE_EVERY_S:
            self._said = now
            log.info("llm      %s", self.line(tally, now))

    def line(self, tally: Tally, now: float) -> str:
        """For example "320 of 1,557 (10 from the cache): 301 answered, 19 abstained or failed, 4 retried …"."""
        without = sum(tally.reasons.values())
        rate = (self._done - self._before) / max(now - self._began, 1e-9)
        left_s = (self._total - self._done) / rate if rate > 0 else 0.0
        return (
            f"{self._done:,} of {self._total:,} ({tally.cached:,} from the cache): {self._done - without:,} answered, "
            f"{without:,} abstained or failed, {tally.retried:,} retried, US$ {tally.paid_usd:.2f} so far, "
            f"about {duration(left_s)} left"
        )


def duration(seconds: float) -> str:
    """In words.

    >>> duration(42), duration(150), duration(5400)
    ('42 seconds', '2.5 minutes', '1.5 hours')
    """
    for unit, size in (("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 1.5 * size or (unit == "hours" and seconds >= size):
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"
