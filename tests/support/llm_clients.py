"""Clients and questions for tests of the language model, whose endpoint is `fake_openai`."""

from __future__ import annotations

from pathlib import Path

from ser_bench.cache import Cache
from ser_bench.config import LlmConfig
from ser_bench.predictors.llm import endpoint
from ser_bench.predictors.llm.client import LlmClient
from ser_bench.predictors.llm.prompting.question import Question

LABELS = ("angry", "happy", "sad")


def make_client(
    cfg: LlmConfig,
    folder: Path,
    labels: tuple[str, ...] = LABELS,
    prompt_digest: str = "prompt",
    ledger: Path | None = None,
) -> LlmClient:
    """Return a client of the endpoint in `cfg` whose answer cache is `folder`."""
    cache, identity = Cache(folder), endpoint.identity(cfg)
    return LlmClient(cfg, labels, cache, identity, prompt_digest, lambda: endpoint.open_endpoint(cfg), ledger=ledger)


def question(text: str) -> Question:
    """Return a question whose user message is this text."""
    return Question(({"role": "system", "content": "Say."}, {"role": "user", "content": text}))


def questions(count: int) -> list[Question]:
    """Return questions whose user messages are "0", "1", …."""
    return [question(str(number)) for number in range(count)]
