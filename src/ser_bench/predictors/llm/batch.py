"""Many questions, many at once: every answer is kept on disk before it is used, and none is asked for twice."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

import openai

from ser_bench.cache import Cache
from ser_bench.config import AnswerFormat, CacheMode, LlmConfig
from ser_bench.errors import InterruptedRunError, LLMError, LLMStoppedError
from ser_bench.predictors.llm import request
from ser_bench.predictors.llm.budget import Purse
from ser_bench.predictors.llm.endpoint import Service
from ser_bench.predictors.llm.parsing.answer import Answer, price_usd
from ser_bench.predictors.llm.prompting.question import Question
from ser_bench.predictors.llm.request import Session
from ser_bench.predictors.llm.request_progress import Progress, Tally
from ser_bench.predictors.llm.token_count import TokenCounter, counter

REVISION = 1
"""Raised when the reading of answers changes, so that answers read in the old way are not used."""
FAILURES_IN_A_ROW = 10
"""So many questions without an answer in between, each after all its retries, mean that the service is down."""
DRAIN_S = 10.0
"""How long answers under way (and paid for) are waited for once a run has to stop."""


class Batch:
    """Asks one service about many clips; a budget holds for all calls of `ask` together.

    Args:
        cfg: model, parameters, limits, use of the cache.
        labels: what may be answered.
        cache: where answers are kept.
        identity: who answers; part of every key.
        prompt_digest: of the prompt's wording; part of every key.
        open_service: called only where something has to be asked.
        reason: True where the prompt asks for a reason too.
    """

    def __init__(
        self,
        cfg: LlmConfig,
        labels: Sequence[str],
        cache: Cache,
        identity: str,
        prompt_digest: str,
        open_service: Callable[[], AbstractContextManager[Service]],
        reason: bool = False,
    ) -> None:
        self._cfg = cfg
        self._labels = tuple(labels)
        self._cache = cache
        self._fixed = {"revision": REVISION, "service": identity, "prompt": prompt_digest, "labels": self._labels}
        if cfg.answer_format is not AnswerFormat.auto:
            self._fixed["answer_format"] = cfg.answer_format.value
        self._open_service = open_service
        self._reason = reason
        self._answers: dict[str, Answer] = {}
        self._failed_in_a_row = 0
        self._stopped = False
        self._purse = Purse(cfg.budget_usd)
        self.counter: TokenCounter = counter(cfg.model)
        self.tally = Tally()

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """One answer a question, in order; equal questions are asked once.

        Raises:
            LLMStoppedError: the budget or the time of the run is used up; what was answered until then is in the cache.
            LLMError: the service cannot be used; likewise.
            InterruptedRunError: Ctrl-C; likewise.
        """
        keys = [self._key(question) for question in questions]
        unique = dict(zip(keys, questions, strict=True))
        self._answers, self.tally = {}, Tally()
        self._failed_in_a_row, self._stopped = 0, False
        self._count_cached(self._stored(unique))
        pending = {key: question for key, question in unique.items() if key not in self._answers}
        if pending:
            self._ask_pending(pending, len(unique))
        return [self._answers[key] for key in keys]

    def stored(self, questions: Sequence[Question]) -> list[Answer | None]:
        """What the cache holds of these, in order; asks nothing."""
        keys = [self._key(question) for question in questions]
        found = self._stored(set(keys))
        return [found.get(key) for key in keys]

    def _ask_pending(self, pending: Mapping[str, Question], total: int) -> None:
        with Progress(total, total - len(pending)) as progress:
            try:
                with self._open_service() as service:
                    asyncio.run(self._ask_all(service, pending, progress))
            except KeyboardInterrupt:
                raise InterruptedRunError(f"interrupted; {self._so_far(total)}, and the same command goes on") from None
            except LLMStoppedError as stop:
                raise LLMStoppedError(
                    f"{stop}; {self._so_far(total)}. With a larger limit the same command goes on"
                ) from None
        failures = [self._answers[key] for key in pending if self._answers[key].failed]
        if len(failures) == len(pending):
            raise LLMError(failures[0].text)

    def _so_far(self, total: int) -> str:
        answered = sum(not answer.failed for answer in self._answers.values())
        kept = "kept" if self._cfg.cache is CacheMode.readwrite else "lost, since llm.cache keeps nothing"
        return f"{answered} of {total} clips were answered (US$ {self.tally.paid_usd:.4f} in this run) and are {kept}"

    def _stored(self, keys: Iterable[str]) -> dict[str, Answer]:
        """What the cache holds."""
        if self._cfg.cache is CacheMode.off:
            return {}
        found = {key: self._cache.read_json(key) for key in keys}
        return {key: Answer.from_json(value) for key, value in found.items() if value is not None}

    def _key(self, question: Question) -> str:
        sent = request.parameters(self._cfg, self._reason, question.sample)
        return Cache.key(**self._fixed, parameters=sent, **question.identity())

    async def _ask_all(self, service: Service, pending: Mapping[str, Question], progress: Progress) -> None:
        """Ask one question alone, which tells the service's limits and what it accepts, then the rest at once."""
        ends_at = None if self._cfg.run_deadline_s is None else time.monotonic() + self._cfg.run_deadline_s
        queue = iter(pending.items())
        async with service.connect(self._cfg) as connection:
            session = self._session(service, connection)
            await self._carry_out([self._work(session, itertools.islice(queue, 1), progress)], ends_at)
            count = min(self._cfg.max_concurrency, len(pending) - 1)
            if count:
                await self._carry_out([self._work(session, queue, progress) for _ in range(count)], ends_at)

    def _session(self, service: Service, connection: openai.AsyncOpenAI) -> Session:
        return Session(connection, service, self._cfg, self._labels, self.counter, self._reason, purse=self._purse)

    async def _carry_out(self, work: Sequence[Coroutine[None, None, None]], ends_at: float | None) -> None:
        """Let workers finish; when one fails or time is up the others finish what is under way, and stop."""
        workers = [asyncio.create_task(one) for one in work]
        late = False
        try:
            left_s = None if ends_at is None else max(0.0, ends_at - time.monotonic())
            done, running = await asyncio.wait(workers, timeout=left_s, return_when=asyncio.FIRST_EXCEPTION)
            late = bool(running) and not any(worker.exception() for worker in done)
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
        if late:
            raise LLMStoppedError(f"llm.run_deadline_s={self._cfg.run_deadline_s:g}: the time of this run is up")

    async def _work(self, session: Session, queue: Iterator[tuple[str, Question]], progress: Progress) -> None:
        """Ask for one after another until none is left or the run has to stop."""
        while not self._stopped and (item := next(queue, None)) is not None:
            key, question = item
            answer = self._stored([key]).get(key)  # another process may have asked meanwhile
            if answer is not None:
                self._count_cached({key: answer})
            else:
                answer = await request.ask(session, question)
                self._keep(key, answer)
            progress.one_more(self.tally)
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
    return price_usd(answer.tokens_in, answer.tokens_out, answer.tokens_audio, cfg)
