"""Many questions at once: concurrency, the answer cache, progress, and the conditions under which a run stops.

Every answer is stored in the cache before it is used, so that an interrupted run asks only for what is missing.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
from tqdm import tqdm

from ser_bench import openai_client
from ser_bench.cache import Cache
from ser_bench.config import AnswerFormat, AudioForm, CacheMode, LlmApi, LlmConfig
from ser_bench.durations import format_duration
from ser_bench.errors import InterruptedRunError, LLMError, LLMStoppedError
from ser_bench.predictors.llm import batches, request, request_body
from ser_bench.predictors.llm.batches import BatchLine, BatchState
from ser_bench.predictors.llm.budget import SMALLEST_BATCH, Budget, cost_usd, price_usd
from ser_bench.predictors.llm.cost_estimate import TokenCounter, token_counter
from ser_bench.predictors.llm.endpoint import Endpoint
from ser_bench.predictors.llm.llm_predictions import CUT_OFF_REASONS, length_advice
from ser_bench.predictors.llm.parsing.model_answer import FAILED, ModelAnswer
from ser_bench.predictors.llm.prompting.question import Question
from ser_bench.predictors.llm.request import RequestContext
from ser_bench.types import digest_of

log = logging.getLogger(__name__)

REVISION = 2
"""Part of the cache keys; increased when answers are interpreted differently."""
EARLIER_REVISION = 1
"""Its entries may be an error with HTTP 200, stored as an abstention, and it read fewer forms of an answer.

What still holds is used, because it was paid for: answers with a label, and `STILL_VALID` abstentions.
"""
STILL_VALID = ("refusal", "content_filter", "too_long")
FAILURES_IN_A_ROW = 10
"""The run stops after this many failures without an answer in between, because the endpoint seems to be down."""
BYTES_AROUND = 4_096
"""Length of a line of a batch beside messages and recording, bytes."""
DRAIN_S = 10.0
"""When a run stops, requests under way, which are paid for, get this time to finish."""
LOG_EVERY_S = 30.0


@dataclass
class RequestCounts:
    """What one call of `LlmClient.ask` took.

    Attributes:
        cached: questions answered from the cache.
        requests: HTTP requests sent, retries included.
        retried: how many of these were retries.
        paid_usd: US dollars for the answers that arrived during the call.
        reasons: reason for a missing label → number of questions.
        unanswered_lines: lines of batches that failed or expired; they were asked again.
    """

    cached: int = 0
    requests: int = 0
    retried: int = 0
    paid_usd: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)
    unanswered_lines: int = 0

    def __add__(self, other: RequestCounts) -> RequestCounts:
        return RequestCounts(
            self.cached + other.cached,
            self.requests + other.requests,
            self.retried + other.retried,
            self.paid_usd + other.paid_usd,
            self.reasons + other.reasons,
            self.unanswered_lines + other.unanswered_lines,
        )


@dataclass
class BatchWork:
    """What one call of `LlmClient.ask` does through the batch API.

    Attributes:
        batches: the batch API.
        state: what the run knows about its batches.
        context: response format and changes of the batch that is made or read; it has no connection.
        left: key → question without an answer so far.
        progress: shows answered questions.
        knows_format: True if `context` holds what the endpoint accepts.
    """

    batches: batches.Batches
    state: BatchState
    context: RequestContext
    left: dict[str, Question]
    progress: RequestProgress
    knows_format: bool = False

    def use(self, response_format: str, changes: Sequence[str]) -> None:
        """Make and read lines with this response format and these changes."""
        self.context.response_format, self.context.changes = response_format, list(changes)
        self.knows_format = True


class LlmClient:
    """Asks one endpoint about many clips. One budget applies to all calls of `ask` together.

    Args:
        cfg: model, parameters, limits, use of the cache.
        labels: the possible labels.
        cache: stores the answers.
        identity: identifies the endpoint in the cache keys.
        prompt_digest: digest of the prompt's wording; part of the cache keys.
        open_endpoint: provides the endpoint; called only if something has to be asked.
        with_reason: True if the prompt asks for a reason as well.
        ledger: file in which the run notes what it spends; None: the budget is that of this client.

    Attributes:
        counts: what the last call of `ask` took.
        counter: counts tokens of prompts.
        budget: money spent and reserved.
    """

    def __init__(
        self,
        cfg: LlmConfig,
        labels: Sequence[str],
        cache: Cache,
        identity: str,
        prompt_digest: str,
        open_endpoint: Callable[[], AbstractContextManager[Endpoint]],
        with_reason: bool = False,
        ledger: Path | None = None,
    ) -> None:
        self._cfg = cfg
        self._labels = tuple(labels)
        self._cache = cache
        self._key_parts: dict[str, Any] = {"service": identity, "prompt": prompt_digest, "labels": self._labels}
        if cfg.answer_format is not AnswerFormat.auto:
            self._key_parts["answer_format"] = cfg.answer_format.value
        self._key_parts |= _parts_of_added_keys(cfg)
        self._open_endpoint = open_endpoint
        self._with_reason = with_reason
        self._answers: dict[str, ModelAnswer] = {}
        self._failed_in_a_row = 0
        self._stopped = False
        self._warned_of_length = False
        self._work_folder = None if ledger is None else ledger.parent
        self.budget = Budget(cfg.budget_usd, ledger)
        self.counter: TokenCounter = token_counter(cfg.model)
        self.counts = RequestCounts()

    def ask(self, questions: Sequence[Question]) -> list[ModelAnswer]:
        """Return one answer per question, in order; equal questions are asked once.

        Raises:
            LLMStoppedError: if the budget or the time of the run is used up; the answers so far are in the cache.
            LLMError: if the endpoint cannot be used; the answers so far are in the cache.
            InterruptedRunError: on Ctrl-C; the answers so far are in the cache.
        """
        keys = [self._key(question) for question in questions]
        unique = dict(zip(keys, questions, strict=True))
        self._answers, self.counts = {}, RequestCounts()
        self._failed_in_a_row, self._stopped = 0, False
        self._use_cached(self._read_cache(unique))
        pending = {key: question for key, question in unique.items() if key not in self._answers}
        if pending:
            self._ask_pending(pending, len(unique))
        return [self._answers[key] for key in keys]

    def stored(self, questions: Sequence[Question]) -> list[ModelAnswer | None]:
        """Return the cached answer to each question, or None; nothing is asked."""
        keys = [self._key(question) for question in questions]
        cached = self._read_cache(dict(zip(keys, questions, strict=True)))
        return [cached.get(key) for key in keys]

    def _ask_pending(self, pending: Mapping[str, Question], total: int) -> None:
        with RequestProgress(total, total - len(pending)) as progress:
            try:
                with self._open_endpoint() as endpoint:
                    left = self._ask_in_batches(endpoint, pending, progress) if self._cfg.batch else pending
                    if left:
                        asyncio.run(self._ask_all(endpoint, left, progress))
            except KeyboardInterrupt:
                raise InterruptedRunError(
                    f"interrupted; {self._summary(total)}. Run the same command again to continue"
                ) from None
            except LLMStoppedError as stop:
                raise LLMStoppedError(
                    f"{stop}; {self._summary(total)}. Run the same command with a larger limit to continue"
                ) from None
        failures = [self._answers[key] for key in pending if self._answers[key].failed]
        if len(failures) == total:
            raise LLMError(failures[0].text)

    def _ask_in_batches(
        self, endpoint: Endpoint, pending: Mapping[str, Question], progress: RequestProgress
    ) -> dict[str, Question]:
        """Ask through the batch API; return what is left to be asked online, because it is too little for a batch.

        Raises:
            LLMError: if the service has no batch API, or refuses a batch.
            LLMStoppedError: if the budget or the time of the run is used up.
        """
        if self._work_folder is None:  # a stored predictor is asked about a few clips
            return dict(pending)
        left = dict(pending)
        try:
            with endpoint.connect_to_batches(self._cfg) as connection:
                state = BatchState(self._work_folder)
                work = BatchWork(
                    batches.Batches(connection, self._cfg, state, endpoint.name, endpoint.secret),
                    state,
                    self._context(endpoint, connection=None),
                    left,
                    progress,
                )
                self._collect(work, work.batches.known())
                for _ in range(batches.MOST_ROUNDS):
                    if len(left) >= SMALLEST_BATCH:
                        self._collect(work, self._submitted(work))
        except openai.NotFoundError as error:
            raise LLMError(
                f"{endpoint.name} has no batch API (HTTP {error.status_code}): set llm.batch=false"
            ) from None
        except openai.APIError as error:
            raise openai_client.explain(error, endpoint.name, self._cfg.model, endpoint.secret) from None
        if len(left) < SMALLEST_BATCH:
            return left
        text = f"{endpoint.name} left this prompt unanswered in {batches.MOST_ROUNDS} batches"
        for key in left:
            self._store(key, ModelAnswer(text, reason=FAILED, cause="unanswered in a batch"))
            progress.update(self.counts)
        return {}

    def _submitted(self, work: BatchWork) -> dict[str, Any]:
        """Return digest → batch for everything that is left; what the service does not have yet is submitted.

        The first question is asked online, which reveals the response format and what the endpoint refuses. An earlier
        process may have done this.
        """
        running, missing = self._at_service(work)
        if running:
            work.use(*batches.made_with(next(iter(running.values()))))
        elif plan := next((work.state.plans[d] for d in map(_digest, missing) if d in work.state.plans), None):
            work.use(*plan)
        elif missing and not work.knows_format:
            asyncio.run(self._learn_format(work))
            running, missing = self._at_service(work)
        for keys in missing:
            running |= self._submit(work, keys)
        return running

    def _at_service(self, work: BatchWork) -> tuple[dict[str, Any], list[list[str]]]:
        """Return (digest → batch that the service has already, keys of each batch that it does not have)."""
        running: dict[str, Any] = {}
        missing = []
        for keys in batches.parts(list(work.left), max(map(_line_bytes, work.left.values()), default=0)):
            known = work.batches.at_service(keys)
            running |= known
            missing += [] if known else [keys]
        return running, missing

    async def _learn_format(self, work: BatchWork) -> None:
        """Ask one question online, and keep the response format and the changes that were needed."""
        key = min(work.left)
        endpoint = work.context.endpoint
        async with endpoint.connect(self._cfg) as connection:
            context = self._context(endpoint, connection)
            await self._work(context, iter([(key, work.left[key])]), work.progress)
        work.use(context.response_format, context.changes)
        if self._answers[key].failed:
            raise LLMError(self._answers[key].text)
        del work.left[key]

    def _submit(self, work: BatchWork, keys: Sequence[str]) -> dict[str, Any]:
        requests = {key: request.request_for(work.context, work.left[key]) for key in keys}
        digest = _digest(keys)
        if digest not in work.state.reserved_usd:
            most_usd = sum(price_usd(most, self._cfg, batched=True) for _, most in requests.values())
            self.budget.reserve_batch(most_usd)
            plan = {"format": work.context.response_format, "changes": list(work.context.changes)}
            work.state.note(digest, reserved_usd=most_usd, **plan)
        lines = [BatchLine(key, body) for key, (body, _) in requests.items()]
        return work.batches.submit(lines, work.context.response_format, work.context.changes)

    def _collect(self, work: BatchWork, running: Mapping[str, Any]) -> None:
        """Wait for batches, store their answers, and replace what was reserved by what they cost.

        Raises:
            LLMError: if a batch was refused, or an error affects every question; the answers are stored before.
        """
        for digest, batch in work.batches.wait(running):
            refusal: LLMError | None = None
            paid_usd = 0.0
            try:
                results = work.batches.results(batch)
            except LLMError as error:
                refusal, results = error, []
            context = work.context
            work.use(*batches.made_with(batch))
            latency_s = batches.seconds_per_line(batch, len(results))
            left_before = len(work.left)
            for result in results:
                paid_usd += request.line_usd(context, result)
                try:
                    question = work.left.get(result.key)
                    answer = question and request.answer_of_line(context, question, result, latency_s)
                except LLMError as error:
                    refusal, answer = error, None
                if answer:
                    self._store(result.key, answer)
                    del work.left[result.key]
                    work.progress.update(self.counts)
            lines = 0 if batch.request_counts is None else batch.request_counts.total
            self.counts.unanswered_lines += max(0, lines - (left_before - len(work.left)))
            reserved_usd = work.state.reserved_usd.get(digest, 0.0)
            work.batches.close(digest, batch)
            self.budget.settle_batch(reserved_usd, paid_usd)
            log.info("batch    %s %s: US$ %.4f, %d prompts left", batch.id, batch.status, paid_usd, len(work.left))
            if refusal is not None:
                raise refusal

    def _summary(self, total: int) -> str:
        answered = sum(not answer.failed for answer in self._answers.values())
        fate = "are kept" if self._cfg.cache is CacheMode.readwrite else "are lost, because llm.cache stores nothing"
        return f"{answered} of {total} clips were answered (US$ {self.counts.paid_usd:.4f} by this command) and {fate}"

    def _read_cache(self, questions: Mapping[str, Question]) -> dict[str, ModelAnswer]:
        """Return key → answer for the questions, given by their keys, whose answer is stored."""
        if self._cfg.cache is CacheMode.off:
            return {}
        answers = {key: self._read_entry(key, question) for key, question in questions.items()}
        return {key: answer for key, answer in answers.items() if answer is not None}

    def _read_entry(self, key: str, question: Question) -> ModelAnswer | None:
        value = self._cache.read_json(key)
        if value is not None:
            return ModelAnswer.from_json(value)
        value = self._cache.read_json(self._key(question, EARLIER_REVISION))
        earlier = None if value is None else ModelAnswer.from_json(value)
        return earlier if earlier and (earlier.label or earlier.reason in STILL_VALID) else None

    def _key(self, question: Question, revision: int = REVISION) -> str:
        parameters = request_body.parameters(self._cfg, self._with_reason, question.sample)
        return Cache.key(**self._key_parts, revision=revision, parameters=parameters, **question.identity())

    async def _ask_all(self, endpoint: Endpoint, pending: Mapping[str, Question], progress: RequestProgress) -> None:
        """Ask the first question alone, which reveals the endpoint's limits and response format, then the rest."""
        ends_at = None if self._cfg.run_deadline_s is None else time.monotonic() + self._cfg.run_deadline_s
        queue = iter(_in_asking_order(pending, endpoint))
        async with endpoint.connect(self._cfg) as connection:
            context = self._context(endpoint, connection)
            await self._run_workers([self._work(context, itertools.islice(queue, 1), progress)], ends_at)
            count = min(self._cfg.max_concurrency, len(pending) - 1)
            if count:
                await self._run_workers([self._work(context, queue, progress) for _ in range(count)], ends_at)

    def _context(self, endpoint: Endpoint, connection: openai.AsyncOpenAI | None) -> RequestContext:
        return RequestContext(
            connection, endpoint, self._cfg, self._labels, self.counter, self._with_reason, budget=self.budget
        )

    async def _run_workers(self, work: Sequence[Coroutine[None, None, None]], ends_at: float | None) -> None:
        """Run workers to their end. If one fails or the time is up, the others finish their request and stop."""
        workers = [asyncio.create_task(coroutine) for coroutine in work]
        is_late = False
        try:
            left_s = None if ends_at is None else max(0.0, ends_at - time.monotonic())
            done, running = await asyncio.wait(workers, timeout=left_s, return_when=asyncio.FIRST_EXCEPTION)
            is_late = bool(running) and not any(worker.exception() for worker in done)
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
        if is_late:
            raise LLMStoppedError(f"llm.run_deadline_s={self._cfg.run_deadline_s:g}: the time of this run is up")

    async def _work(
        self, context: RequestContext, queue: Iterator[tuple[str, Question]], progress: RequestProgress
    ) -> None:
        """Ask one question after another until none is left or the run has to stop."""
        while not self._stopped and (item := next(queue, None)) is not None:
            key, question = item
            answer = self._read_cache({key: question}).get(key)  # another process may have asked meanwhile
            if answer is not None:
                self._use_cached({key: answer})
            else:
                answer = await request.ask(context, question)
                self._store(key, answer)
            progress.update(self.counts)
            if self._failed_in_a_row >= FAILURES_IN_A_ROW:
                raise LLMError(answer.text)

    def _store(self, key: str, answer: ModelAnswer) -> None:
        """Store an answer in the cache and count it; a failure is not stored, so that it is asked again.

        If another process has stored an answer to the same question meanwhile, that answer is used here as well: a
        model does not give the same answer twice, and the same question must have one answer.
        """
        used = answer
        if self._cfg.cache is CacheMode.readwrite and not answer.failed:
            used = ModelAnswer.from_json(self._cache.write_first_json(key, answer.to_json()))
        self._answers[key] = used
        self._failed_in_a_row = self._failed_in_a_row + 1 if answer.failed else 0
        self.counts.requests += answer.requests
        self.counts.retried += answer.retries
        self.counts.paid_usd += cost_usd(answer, self._cfg)
        if used.reason:
            self.counts.reasons[used.reason] += 1
        if used.reason in CUT_OFF_REASONS and not self._warned_of_length:
            self._warned_of_length = True
            log.warning(
                "warning  an answer was cut off before its label: %s",
                length_advice(self._cfg, used.reason == "thinking"),
            )

    def _use_cached(self, cached: Mapping[str, ModelAnswer]) -> None:
        self._answers.update(cached)
        self.counts.cached += len(cached)
        self.counts.reasons.update(answer.reason for answer in cached.values() if answer.reason)


def _digest(keys: Sequence[str]) -> str:
    return digest_of(sorted(keys))


def _line_bytes(question: Question) -> int:
    """Return an upper bound on the length of the line of a question: the same in every process of a run."""
    text = sum(2 * len(message["content"].encode()) for message in question.messages)
    return text + BYTES_AROUND + (0 if question.recording is None else question.recording.encoded_bytes)


def _parts_of_added_keys(cfg: LlmConfig) -> dict[str, Any]:
    """Return the parts of cache keys that came after the first answers were stored; defaults are left out."""
    parts = {
        "api": cfg.api.value if cfg.api is not LlmApi.chat else "",
        "api_version": cfg.api_version or "",
        "audio_form": cfg.audio_form.value if cfg.audio_form is not AudioForm.input_audio else "",
        "system": "in the user message" if "system" in cfg.unsupported else "",
    }
    return {name: value for name, value in parts.items() if value}


def _in_asking_order(pending: Mapping[str, Question], endpoint: Endpoint) -> list[tuple[str, Question]]:
    """Return the questions with their keys in the order in which they are asked.

    The server of this process evaluates only what differs from the last prompt. It is therefore asked in the order of
    the prompts' text, so that neighbours share labels, examples, transcript and more; other endpoints in the given one.
    """
    items = list(pending.items())
    if not endpoint.is_llama_cpp:
        return items
    return sorted(items, key=lambda item: [str(message["content"]) for message in item[1].messages])


class RequestProgress:
    """Shows how many questions are answered: a bar in a terminal, a line every half minute in a log.

    Use it in a `with` block.

    Args:
        total: number of questions.
        done: questions that were answered before.
    """

    def __init__(self, total: int, done: int) -> None:
        self._total, self._done, self._done_before = total, done, done
        self._started = self._logged = time.monotonic()
        self._bar = tqdm(total=total, initial=done, desc="language model", unit="clip", disable=None)

    def __enter__(self) -> RequestProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def update(self, counts: RequestCounts) -> None:
        """Count one more question that is answered or has failed."""
        self._done += 1
        self._bar.update()
        state = {"cached": counts.cached, "retried": counts.retried, "usd": f"{counts.paid_usd:.2f}"} | counts.reasons
        self._bar.set_postfix(state, refresh=False)
        now = time.monotonic()
        if not sys.stderr.isatty() and now - self._logged >= LOG_EVERY_S:
            self._logged = now
            log.info("llm      %s", self.line(counts, now - self._started))

    def line(self, counts: RequestCounts, elapsed_s: float) -> str:
        """Return the state as one line.

        For example "320 of 1,557 (10 from the cache): 301 answered, 17 abstained, 2 failed, 4 retried …".
        """
        without_label, failed = sum(counts.reasons.values()), counts.reasons[FAILED]
        rate = (self._done - self._done_before) / max(elapsed_s, 1e-9)
        left_s = (self._total - self._done) / rate if rate > 0 else 0.0
        return (
            f"{self._done:,} of {self._total:,} ({counts.cached:,} from the cache): "
            f"{self._done - without_label:,} answered, "
            f"{without_label - failed:,} abstained, {failed:,} failed, "
            f"{counts.retried:,} retried, US$ {counts.paid_usd:.2f} so far, about {format_duration(left_s)} left"
        )
