"""One request, sent again after passing faults: within its pace, its budget and its deadline."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any, cast

import openai

from ser_bench import openai_client
from ser_bench.config import LlmConfig
from ser_bench.errors import LLMError
from ser_bench.predictors.llm.budget import Purse
from ser_bench.predictors.llm.parsing import answer
from ser_bench.predictors.llm.rate_limiter import Pace, backoff_s, retry_after_s

LONGEST_RETRY_AFTER_S = 120.0
"""A service that wants more patience is asked again by another run."""


class Attempts:
    """Sends requests about one clip, and counts them.

    Attributes:
        requests: sent.
        retries: of these, repetitions after a fault.
    """

    def __init__(self, connection: openai.AsyncOpenAI, cfg: LlmConfig, pace: Pace, purse: Purse) -> None:
        self._connection, self._cfg, self._pace, self._purse = connection, cfg, pace, purse
        self._deadline = time.monotonic() + cfg.deadline_s
        self.requests = self.retries = 0

    async def send(self, body: dict[str, Any], tokens: int, most_usd: float) -> dict[str, Any] | None:
        """The completion; None where the body is no JSON object.

        Args:
            body: arguments of the client's `create`.
            tokens: of prompt and answer, for the pace.
            most_usd: what one request can cost at most.

        Raises:
            openai.APIError: after all retries, or where repeating does not help.
            LLMStoppedError: the budget.
            LLMError: the service wants a long rest.
        """
        retry = 0
        while True:
            try:
                return await self._once(body, tokens, most_usd)
            except openai.APIError as error:
                wait_s = self._wait_s(error, retry + 1)
                if wait_s is None:
                    raise
            await asyncio.sleep(wait_s)
            retry += 1
            self.retries += 1

    async def _once(self, body: dict[str, Any], tokens: int, most_usd: float) -> dict[str, Any] | None:
        await self._pace.turn(tokens)
        await self._purse.hold(most_usd)
        paid_usd = most_usd  # until it is known: what never arrived may have been answered, and charged
        try:
            self.requests += 1
            async with asyncio.timeout(min(self._cfg.timeout_s, max(0.0, self._deadline - time.monotonic()))):
                raw = await self._connection.chat.completions.with_raw_response.create(**body)
            self._pace.learn(raw.headers)
            completion = _json(raw.text)
            if completion is not None:
                paid_usd = answer.paid_usd(completion, self._cfg)
            return completion
        except openai.APIStatusError as error:
            paid_usd = 0.0  # a refusal is not charged
            self._pace.learn(error.response.headers)
            raise
        except TimeoutError:  # whole, where the client's own limit is for each piece that arrives
            raise openai.APITimeoutError(cast("Any", None)) from None  # it wants the request, which nobody reads
        finally:
            self._purse.settle(most_usd, paid_usd)

    def _wait_s(self, error: openai.APIError, retry: int) -> float | None:
        """Seconds until the request may be repeated; None: it may not.

        Raises:
            LLMError: a rest that no run waits for.
        """
        if retry > self._cfg.max_retries or not openai_client.may_pass(error):
            return None
        said_s = retry_after_s(error.response.headers) if isinstance(error, openai.APIStatusError) else None
        if said_s is not None and said_s > LONGEST_RETRY_AFTER_S:
            raise LLMError(
                f"the service wants a rest of {said_s:,.0f} seconds. Answers so far are kept: run the same command "
                "again then"
            )
        if said_s is not None:
            self._pace.pause(said_s)  # the others are not welcome either
        wait_s = backoff_s(retry) if said_s is None else said_s
        return wait_s if time.monotonic() + wait_s < self._deadline else None


def _json(body: str) -> dict[str, Any] | None:
    """The object in a body; plain, because the client's own types take four times as long for many logprobs."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
