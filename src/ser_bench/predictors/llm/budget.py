"""The cost of requests and the budget that limits it: prices, costs, and money reserved before a request is sent.

A budget is that of a run. What the run spent is written to a file in its work folder, the ledger, so that it still
counts when the run is stopped and started again.
"""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path

from ser_bench.config import LlmConfig
from ser_bench.errors import ConfigError, LLMError, LLMStoppedError
from ser_bench.predictors.llm.parsing.model_answer import ModelAnswer, TokenUsage

LEDGER_FILE = "llm_spending.jsonl"
POLL_S = 0.02
BATCH_PRICE_FACTOR = 0.5
"""Price of the batch API, as a factor of the list price."""
SMALLEST_BATCH = 20
"""Fewer questions are asked online: they cost little, and a batch may take a day."""


def check_prices(cfg: LlmConfig) -> None:
    """Check that the budget can be enforced, which needs prices.

    Raises:
        ConfigError: if the budget is negative, or no price is set.
    """
    if cfg.budget_usd is None:
        return
    if cfg.budget_usd < 0:
        raise ConfigError(f"llm.budget_usd={cfg.budget_usd:g}: a budget is 0 or more; null sets none")
    if not cfg.local and cfg.price_in_usd <= 0 and cfg.price_out_usd <= 0:
        raise ConfigError(
            f"llm.budget_usd={cfg.budget_usd:g} cannot be enforced without prices: set llm.price_in_usd and "
            "llm.price_out_usd (US dollars per million tokens)"
        )


def price_usd(usage: TokenUsage, cfg: LlmConfig, batched: bool = False) -> float:
    """Return the cost of these tokens at the prices of the configuration, US dollars; of the batch API if `batched`."""
    text = usage.prompt - usage.audio
    micro_usd = text * cfg.price_in_usd + usage.audio * cfg.price_audio_in_usd + usage.answer * cfg.price_out_usd
    return micro_usd / 1e6 * (BATCH_PRICE_FACTOR if batched else 1.0)


def cost_usd(answer: ModelAnswer, cfg: LlmConfig) -> float:
    """Return the cost of an answer, whenever it was given, US dollars."""
    return price_usd(TokenUsage(answer.tokens_in, answer.tokens_out, answer.tokens_audio), cfg, answer.batched)


class Budget:
    """The money of one run: spent, and reserved for requests that are under way.

    Some endpoints ignore `max_tokens`, so that a request costs more than the most that it should. From then on, every
    request is reserved with the largest such excess so far, as a factor.

    Args:
        limit_usd: US dollars; None: no limit.
        ledger: file in which spending is noted; what it holds counts as spent. None: nothing is noted.

    Attributes:
        spent_usd: cost of the requests that ended, also in earlier processes of the run. A request without an answer
            counts with the most that it can cost, because the endpoint may charge for an answer that never arrived.
        reserved_usd: the most that requests under way can cost.
    """

    def __init__(self, limit_usd: float | None, ledger: Path | None = None) -> None:
        self._limit_usd = limit_usd
        self._ledger = ledger
        self._excess = 1.0
        self.spent_usd = _noted_usd(ledger)
        self.reserved_usd = 0.0

    async def reserve(self, most_usd: float) -> float:
        """Reserve the most that a request can cost. Wait for other requests to end if that may free enough money.

        It is noted at once, so that it counts as spent if the process is killed before the answer arrives.

        Args:
            most_usd: the most that the request should cost.

        Returns:
            What was reserved; `settle` needs it.

        Raises:
            LLMStoppedError: if the request could exceed the budget.
            LLMError: if the ledger cannot be written.
        """
        while self._limit_usd is not None and self._exceeds(most_usd * self._excess):
            if self.reserved_usd <= 0.0:
                raise LLMStoppedError(
                    f"llm.budget_usd={self._limit_usd:g}: one more request could exceed it (US$ {self.spent_usd:.4f} "
                    f"spent by this run, at most {most_usd * self._excess:.4f} for the next)"
                )
            await asyncio.sleep(POLL_S)
        reserved_usd = most_usd * self._excess
        self.reserved_usd += reserved_usd
        self._note(reserved_usd)
        return reserved_usd

    def settle(self, most_usd: float, reserved_usd: float, paid_usd: float) -> None:
        """Replace what was reserved for a request by what it cost."""
        self.reserved_usd = max(0.0, self.reserved_usd - reserved_usd)
        if self.reserved_usd < 1e-12:  # a rounding error must not look like a request under way
            self.reserved_usd = 0.0
        self.spent_usd += paid_usd
        if most_usd > 0:
            self._excess = max(self._excess, paid_usd / most_usd)
        self._note(paid_usd - reserved_usd)

    def reserve_batch(self, most_usd: float) -> None:
        """Count the most that a batch can cost as spent, until `settle_batch`.

        A batch outlives the process, so that this counts for the next process of the run as well.

        Raises:
            LLMStoppedError: if the batch could exceed the budget.
            LLMError: if the ledger cannot be written.
        """
        if self._limit_usd is not None and self._exceeds(most_usd):
            raise LLMStoppedError(
                f"llm.budget_usd={self._limit_usd:g}: the batch could exceed it (US$ {self.spent_usd:.4f} spent by "
                f"this run, at most {most_usd:.4f} for the batch)"
            )
        self.spent_usd += most_usd
        self._note(most_usd)

    def settle_batch(self, reserved_usd: float, paid_usd: float) -> None:
        """Replace what `reserve_batch` of this or an earlier process counted by what the batch cost."""
        self.spent_usd += paid_usd - reserved_usd
        self._note(paid_usd - reserved_usd)

    def _exceeds(self, more_usd: float) -> bool:
        assert self._limit_usd is not None
        return self.spent_usd + self.reserved_usd + more_usd > self._limit_usd

    def _note(self, usd: float) -> None:
        """Append a change of what was spent; the line break comes first, because a kill may have cut the last line."""
        if self._ledger is None or usd == 0.0:
            return
        try:
            with self._ledger.open("a", encoding="utf-8") as file:
                file.write("\n" + json.dumps({"usd": usd}))
        except OSError as error:
            raise LLMError(
                f"{self._ledger}: cannot note what the run spends ({error.strerror}), so its budget could not be kept. "
                "Free some space, or choose another tracking.dir"
            ) from error


def _noted_usd(ledger: Path | None) -> float:
    """Return the sum of a ledger, US dollars; lines that a kill cut are left out."""
    if ledger is None or not ledger.exists():
        return 0.0
    total = 0.0
    for line in ledger.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            usd = float(json.loads(line)["usd"])
        except (ValueError, TypeError, KeyError):
            continue
        total += usd if math.isfinite(usd) else 0.0
    return max(0.0, total)
