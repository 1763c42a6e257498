"""Many prompts, many at once: every answer is kept on disk before it is used, and none is asked for twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import openai
from tqdm import tqdm

from ser_bench.cache import Cache
from ser_bench.config import CacheMode, LlmConfig
from ser_bench.errors import InterruptedRunError, LLMError
from ser_bench.llm import request
from ser_bench.llm.answer import Answer
from ser_bench.llm.prompt import Message
from ser_bench.llm.service import Service

REVISION = 1
"""Raised when the reading of answers changes, so that answers read in the old way are not used."""
FAILURES_IN_A_ROW = 10
"""So many prompts without an answer in between, each after all its retries, mean that the service is down."""
DRAIN_S = 10.0
"""How long answers under way (and paid for) are waited for once a run has to stop."""


@dataclass
class Tally:
    """What it took to get the answers of one call.

    Attributes:
        cached: prompts answered from the cache.
        requests: HTTP requests sent, retries included.
        retried: of these, retries.
        paid_usd: US dollars for the answers that came in this call.
        reasons: why prompts have no label → how many.
    """

    cached: int = 0
    requests: int = 0
    retried: int = 0
    paid_usd: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)


class Batch:
    """Asks one service about many clips.

    Args:
        cfg: model, parameters, limits, use of the cache.
        labels: what may be answered.
        cache: where answers are kept.
        identity: who answers; part of every key.
        prompt_digest: of the prompt's wording; part of every key.
        open_service: called only where something has to be asked.
    """

    def __init__(
        self,
        cfg: LlmConfig,
        labels: Sequence[str],
        cache: Cache,
        identity: str,
        prompt_digest: str,
        open_service: Callable[[], AbstractContextManager[Service]],
    ) -> None:
        self._cfg = cfg
        self._labels = tuple(labels)
        self._cache = cache
        self._fixed = {"revision": REVISION, "service": identity, "prompt": prompt_digest, "labels": self._labels}
        self._open_service = open_service
        self._answers: dict[str, Answer] = {}
        self._failed_in_a_row = 0
        self._stopped = False
        self.tally = Tally()

    def ask(self, prompts: Sequence[Sequence[Message]]) -> list[Answer]:
        """One answer a prompt, in order; equal prompts are asked once.

        Raises:
            LLMError: the service cannot be used; what it answered until then is in the cache.
            InterruptedRunError: Ctrl-C.
        """
        keys = [self._key(messages) for messages in prompts]
        unique = dict(zip(keys, prompts, strict=True))
        self._answers, self.tally = {}, Tally()
        self._failed_in_a_row, self._stopped = 0, False
        self._count_cached(self._stored(unique))
        pending = {key: messages for key, messages in unique.items() if key not in self._answers}
        if pending:
            self._ask_pending(pending, len(unique))
        return [self._answers[key] for key in keys]

    def _ask_pending(self, pending: Mapping[str, Sequence[Message]], total: int) -> None:
        with tqdm(total=total, initial=total - len(pending), desc="language model", unit="clip", disable=None) as bar:
            try:
                with self._open_service() as service:
                    asyncio.run(self._ask_all(service, pending, bar))
            except KeyboardInterrupt:
                kept = "these answers are kept and " if self._cfg.cache is CacheMode.readwrite else ""
                raise InterruptedRunError(
                    f"interrupted after {len(self._answers)} of {total} clips were answered; {kept}"
                    "the same command goes on"
                ) from None
        failures = [self._answers[key] for key in pending if self._answers[key].failed]
        if len(failures) == len(pending):
            raise LLMError(failures[0].text)

    def _stored(self, keys: Iterable[str]) -> dict[str, Answer]:
        """What the cache holds."""
        if self._cfg.cache is CacheMode.off:
            return {}
        found = {key: self._cache.read_json(key) for key in keys}
        return {key: Answer.from_json(value) for key, value in found.items() if value is not None}

    def _key(self, messages: Sequence[Message]) -> str:
        return Cache.key(**self._fixed, parameters=request.parameters(self._cfg), messages=list(messages))

    async def _ask_all(self, service: Service, pending: Mapping[str, Sequence[Message]], bar: tqdm[Any]) -> None:
        """Work through `pending` with as many workers as requests may be under way."""
        queue = iter(pending.items())
        async with service.connect(self._cfg) as connection:
            count = min(self._cfg.max_concurrency, len(pending))
            workers = [asyncio.create_task(self._work(service, connection, queue, bar)) for _ in range(count)]
            try:
                _, running = await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
                if running:
                    self._stopped = True
                    await asyncio.wait(running, timeout=DRAIN_S)
            finally:
                for worker in workers:
                    worker.cancel()
                results = await asyncio.gather(*workers, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _work(
        self,
        service: Service,
        connection: openai.AsyncOpenAI,
        queue: Iterator[tuple[str, Sequence[Message]]],
        bar: tqdm[Any],
    ) -> None:
        """Ask for one after another until none is left or the run has to stop."""
        while not self._stopped and (item := next(queue, None)) is not None:
            key, messages = item
            answer = self._stored([key]).get(key)  # another process may have asked meanwhile
            if answer is not None:
                self._count_cached({key: answer})
            else:
                answer = await request.ask(connection, service, self._cfg, self._labels, messages)
                self._keep(key, answer)
            bar.update()
            state = {"retried": self.tally.retried, "usd": f"{self.tally.paid_usd:.2f}"} | self.tally.reasons
            bar.set_postfix(state, refresh=False)
            if self._failed_in_a_row >= FAILURES_IN_A_ROW:
                raise LLMError(answer.text)

    def _keep(self, key: str, answer: Answer) -> None:
        """To the disk first, so that nothing paid for is lost; a failure is no answer and is asked for again.

        Where another process has stored an answer to the same question meanwhile, that one counts for both: a model
        does not answer twice alike, and the same question must have one answer.
        """
        used = answer
        if self._cfg.cache is CacheMode.readwrite and not answer.failed:
            used = Answer.from_json(self._cache.write_first_json(key, answer.to_json()))
        self._answers[key] = used
        self._failed_in_a_row = self._failed_in_a_row + 1 if answer.failed else 0
        self.tally.requests += answer.requests
        self.tally.retried += answer.retries
        self.tally.paid_usd += cost_usd(answer, self._cfg)
        if used.reason:
            self.tally.reasons[used.reason] += 1

    def _count_cached(self, found: Mapping[str, Answer]) -> None:
        self._answers.update(found)
        self.tally.cached += len(found)
        self.tally.reasons.update(answer.reason for answer in found.values() if answer.reason)


def cost_usd(answer: Answer, cfg: LlmConfig) -> float:
    """US dollars: tokens times the prices in the configuration."""
    return (answer.tokens_in * cfg.price_in_usd + answer.tokens_out * cfg.price_out_usd) / 1e6
