"""The budget: before a request is sent, what it could cost at most is set aside."""

from __future__ import annotations

import asyncio

from ser_bench.config import LlmConfig
from ser_bench.errors import ConfigError, LLMStoppedError

POLL_S = 0.02


def check_prices(cfg: LlmConfig) -> None:
    """A budget means something only where prices are known.

    Raises:
        ConfigError: a budget below zero, or one without prices.
    """
    if cfg.budget_usd is None:
        return
    if cfg.budget_usd < 0:
        raise ConfigError(f"llm.budget_usd={cfg.budget_usd:g}: a budget is 0 or more; null sets none")
    if not cfg.local and cfg.price_in_usd <= 0 and cfg.price_out_usd <= 0:
        raise ConfigError(
            f"llm.budget_usd={cfg.budget_usd:g} cannot be kept without prices: set llm.price_in_usd and "
            "llm.price_out_usd (US dollars per million tokens)"
        )


class Purse:
    """What may be spent, what is, and what requests under way could cost at most.

    Args:
        budget_usd: US dollars; None: any amount.

    Attributes:
        spent_usd: paid, with the most that a request without an answer could have cost: a service may charge for an
            answer that never arrived.
    """

    def __init__(self, budget_usd: float | None) -> None:
        self._budget_usd = budget_usd
        self.spent_usd = 0.0
        self._held_usd = 0.0

    async def hold(self, most_usd: float) -> None:
        """Set aside the most that a request can cost; waits for others to settle where that may help.

        Raises:
            LLMStoppedError: it could exceed the budget.
        """
        while self._budget_usd is not None and self.spent_usd + self._held_usd + most_usd > self._budget_usd:
            if self._held_usd <= 0.0:
                raise LLMStoppedError(
                    f"llm.budget_usd={self._budget_usd:g}: one more request could exceed it (US$ {self.spent_usd:.4f} "
                    f"spent, at most {most_usd:.4f} for the next)"
                )
            await asyncio.sleep(POLL_S)
        self._held_usd += most_usd

    def settle(self, most_usd: float, paid_usd: float) -> None:
        """The request is over, and cost this much."""
        self._held_usd = max(0.0, self._held_usd - most_usd)
        if self._held_usd < 1e-12:  # what rounding leaves must not look like a request under way
            self._held_usd = 0.0
        self.spent_usd += paid_usd
