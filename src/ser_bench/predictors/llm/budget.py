"""The cost of requests and the budget that limits it: prices, costs, and money reserved before a request is sent."""

from __future__ import annotations

import asyncio

from ser_bench.config import LlmConfig
from ser_bench.errors import ConfigError, LLMStoppedError
from ser_bench.predictors.llm.parsing.answer import ModelAnswer, TokenUsage

POLL_S = 0.02


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


def price_usd(usage: TokenUsage, cfg: LlmConfig) -> float:
    """Return the cost of these tokens at the prices of the configuration, US dollars."""
    text = usage.prompt - usage.audio
    micro_usd = text * cfg.price_in_usd + usage.audio * cfg.price_audio_in_usd + usage.answer * cfg.price_out_usd
    return micro_usd / 1e6


def cost_usd(answer: ModelAnswer, cfg: LlmConfig) -> float:
    """Return the cost of an answer, whenever it was given, US dollars."""
    return price_usd(TokenUsage(answer.tokens_in, answer.tokens_out, answer.tokens_audio), cfg)


class Budget:
    """The money of one run: spent, and reserved for requests that are under way.

    Args:
        limit_usd: US dollars; None: no limit.

    Attributes:
        spent_usd: cost of the requests that ended. A request without an answer counts with the most that it can cost,
            because the endpoint may charge for an answer that never arrived.
        reserved_usd: the most that requests under way can cost.
    """

    def __init__(self, limit_usd: float | None) -> None:
        self._limit_usd = limit_usd
        self.spent_usd = 0.0
        self.reserved_usd = 0.0

    async def reserve(self, most_usd: float) -> None:
        """Reserve the most that a request can cost. Wait for other requests to end if that may free enough money.

        Raises:
            LLMStoppedError: if the request could exceed the budget.
        """
        while self._limit_usd is not None and self.spent_usd + self.reserved_usd + most_usd > self._limit_usd:
            if self.reserved_usd <= 0.0:
                raise LLMStoppedError(
                    f"llm.budget_usd={self._limit_usd:g}: one more request could exceed it (US$ {self.spent_usd:.4f} "
                    f"spent, at most {most_usd:.4f} for the next)"
                )
            await asyncio.sleep(POLL_S)
        self.reserved_usd += most_usd

    def settle(self, most_usd: float, paid_usd: float) -> None:
        """Replace what was reserved for a request by what it cost."""
        self.reserved_usd = max(0.0, self.reserved_usd - most_usd)
        if self.reserved_usd < 1e-12:  # a rounding error must not look like a request under way
            self.reserved_usd = 0.0
        self.spent_usd += paid_usd
