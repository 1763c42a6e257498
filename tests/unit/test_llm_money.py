"""Tokens, the estimate before a run, and the budget that no run exceeds."""

from __future__ import annotations

import sys
import types
from collections import Counter
from dataclasses import replace

import pytest

from ser_bench.cache import Cache
from ser_bench.config import CacheMode, LlmConfig
from ser_bench.errors import ConfigError, LLMStoppedError
from ser_bench.predictors.llm import budget, endpoint, token_count
from ser_bench.predictors.llm.batch import Batch
from ser_bench.predictors.llm.cost_estimate import estimate
from ser_bench.predictors.llm.parsing.answer import Answer, schema
from ser_bench.predictors.llm.prompting.question import Question
from ser_bench.predictors.llm.request_progress import Progress, Tally
from tests.support import fake_openai as fake

LABELS = ("angry", "happy", "sad")
PRICES = {"price_in_usd": 2.5, "price_out_usd": 10.0, "price_date": "2024-10"}
PAID_USD = 100 * 2.5e-6 + 10 * 10e-6
"""What the fake server's answers cost."""


@pytest.fixture
def server():
    with fake.serve() as running:
        yield running


@pytest.fixture
def cfg(server):
    return LlmConfig(
        name="fake", model="m", base_url=server.base_url, api_key_env=None, timeout_s=5.0, max_retries=0,
        max_concurrency=4, **PRICES,
    )  # fmt: skip


def questions(count: int) -> list[Question]:
    return [
        Question(({"role": "system", "content": "Say."}, {"role": "user", "content": str(n)})) for n in range(count)
    ]


def make(cfg: LlmConfig, folder) -> Batch:
    return Batch(cfg, LABELS, Cache(folder), endpoint.identity(cfg), "p", lambda: endpoint.open_service(cfg))


def fake_tiktoken(monkeypatch, on_disk: bool) -> list[str]:
    """A tiktoken that reads its table as the real one does; returns the addresses that it wanted to fetch."""
    wanted: list[str] = []
    loading = types.ModuleType("tiktoken.load")

    def fetch(path: str) -> bytes:
        wanted.append(path)
        return b""

    loading.read_file = fetch
    module = types.ModuleType("tiktoken")

    def encoding_for_model(model: str) -> object:
        if model != "gpt-4o":
            raise KeyError(model)
        if not on_disk:
            loading.read_file("https://example.org/o200k_base.tiktoken")
        return types.SimpleNamespace(encode=lambda text, disallowed_special: list(range(len(text.split()))))

    module.encoding_for_model = encoding_for_model
    monkeypatch.setitem(sys.modules, "tiktoken", module)
    monkeypatch.setitem(sys.modules, "tiktoken.load", loading)
    return wanted


def test_counts_with_tiktoken_where_its_table_is_on_disk(monkeypatch):
    fake_tiktoken(monkeypatch, on_disk=True)
    found = token_count.counter("gpt-4o")
    assert found.exact and "tiktoken" in found.how
    one = Question(({"role": "system", "content": "a b c"}, {"role": "user", "content": "d e"}))
    assert found.count(one, "f") == 6 + 2 * 3 + 3 == found.at_most(one, "f")


@pytest.mark.parametrize(("model", "on_disk"), [("gpt-4o", False), ("qwen", True)])
def test_nothing_is_fetched_for_counting(monkeypatch, model, on_disk):
    wanted = fake_tiktoken(monkeypatch, on_disk)
    found = token_count.counter(model)
    assert not wanted and not found.exact and "estimate" in found.how
    assert sys.modules["tiktoken.load"].read_file("x") == b"", "left as it was found"


def test_without_tiktoken_it_says_that_it_estimates(monkeypatch):
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    found = token_count.counter("gpt-4o")
    assert not found.exact and "estimate" in found.how


@pytest.mark.parametrize("text", ["", "Straße", "日本語のテキスト", "a" * 1000, "mean 210, median 206 Hz", "🙂🙂"])
def test_bound_is_one_that_no_tokenizer_of_bytes_can_exceed(monkeypatch, text):
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    found = token_count.counter("m")
    one = Question(({"role": "user", "content": text},))
    assert found.count(one) <= found.at_most(one) == len(text.encode()) + 6


def test_estimate_counts_only_what_is_left_to_ask(cfg, tmp_path):
    make(cfg, tmp_path).ask(questions(4))
    batch = make(cfg, tmp_path)
    asked = [*questions(10), questions(10)[9]]
    found = estimate(asked, batch.stored(asked), LABELS, False, cfg, batch.counter)
    assert (found.clips, found.cached) == (11, 4)
    one = batch.counter.count(asked[0], token_count.text_of(schema(LABELS)))
    assert found.tokens_in == 6 * one, "the same question is asked once"
    assert (found.tokens_out, found.tokens_out_most) == (6 * 10, 6 * 16), "as long as the answers that are known"
    assert found.usd == pytest.approx((found.tokens_in * 2.5 + 60 * 10) / 1e6)
    assert found.usd_most == pytest.approx((found.tokens_in * 2.5 + 96 * 10) / 1e6)
    text = "\n".join(found.lines(cfg))
    for words in ("11, of which 4", "7 to ask", "estimate", "2024-10", "nothing was asked", "4 answers in the cache"):
        assert words in text


def test_time_follows_the_narrowest_limit(cfg):
    def seconds(**changes):
        one = replace(cfg, **changes)
        found = estimate(questions(120), [None] * 120, LABELS, False, one, token_count.counter("m"))
        return found.seconds, found.timed

    assert seconds() == (pytest.approx(30.0), "1.0 s a request, a guess, no answer is known yet; 4 at once")
    assert seconds(requests_per_minute=60) == (pytest.approx(120.0), "llm.requests_per_minute=60")
    assert seconds(requests_per_minute=60, tokens_per_minute=60.0)[1] == "llm.tokens_per_minute=60"


def test_known_answers_tell_the_time(cfg):
    known = [Answer("", "sad", latency_s=8.0, tokens_out=10)] * 20 + [None] * 100
    found = estimate(questions(120), known, LABELS, False, cfg, token_count.counter("m"))
    assert found.seconds == pytest.approx(100 * 8.0 / 4) and "20 answers" in found.timed


def test_budget_is_never_exceeded_and_keeps_what_was_bought(server, cfg, tmp_path):
    tight = replace(cfg, budget_usd=10 * PAID_USD)
    with pytest.raises(LLMStoppedError) as caught:
        make(tight, tmp_path).ask(questions(50))
    asked = len(server.asked)
    assert 5 <= asked <= 10
    said = str(caught.value)
    assert f"{asked} of 50 clips were answered" in said and "llm.budget_usd" in said and "are kept" in said
    assert said.count("US$") == 2
    assert "\n" not in said
    # The same command with more money asks for the rest alone.
    batch = make(replace(cfg, budget_usd=100 * PAID_USD), tmp_path)
    assert len(batch.ask(questions(50))) == 50 and len(server.asked) == 50
    assert batch.tally.paid_usd == pytest.approx((50 - asked) * PAID_USD)


def test_budget_of_nothing_asks_nothing_but_what_is_bought_is_free(server, cfg, tmp_path):
    make(cfg, tmp_path).ask(questions(3))
    broke = replace(cfg, budget_usd=0.0)
    assert len(make(broke, tmp_path).ask(questions(3))) == 3 == len(server.asked)
    with pytest.raises(LLMStoppedError, match="3 of 4 clips"):
        make(broke, tmp_path).ask(questions(4))
    assert len(server.asked) == 3


def test_budget_says_where_nothing_is_kept(server, cfg, tmp_path):
    with pytest.raises(LLMStoppedError, match=r"lost, since llm\.cache keeps nothing"):
        make(replace(cfg, budget_usd=3 * PAID_USD, cache=CacheMode.off), tmp_path).ask(questions(9))


def test_answer_that_never_arrived_may_have_been_charged(server, cfg, tmp_path):
    server.queue.extend([fake.Reply({}, cut=True)] * 3)
    batch = make(replace(cfg, max_concurrency=1, budget_usd=1.0), tmp_path)
    batch.ask(questions(5))
    assert batch.tally.paid_usd == pytest.approx(2 * PAID_USD)
    assert batch._purse.spent_usd > 3 * 16 * 10e-6 + 2 * PAID_USD, "three at the most that they may have cost"
    assert batch._purse._held_usd == 0.0


def test_refused_request_is_not_charged(server, cfg, tmp_path):
    server.queue.extend([fake.error(500, "oops")] * 3)
    batch = make(replace(cfg, max_concurrency=1, budget_usd=1.0), tmp_path)
    batch.ask(questions(5))
    assert batch._purse.spent_usd == pytest.approx(2 * PAID_USD)


def test_budget_without_prices_is_refused(cfg):
    with pytest.raises(ConfigError, match=r"llm\.price_in_usd"):
        budget.check_prices(replace(cfg, budget_usd=1.0, price_in_usd=0.0, price_out_usd=0.0))
    with pytest.raises(ConfigError, match="0 or more"):
        budget.check_prices(replace(cfg, budget_usd=-1.0))
    budget.check_prices(replace(cfg, budget_usd=1.0))
    budget.check_prices(replace(cfg, budget_usd=1.0, price_in_usd=0.0, price_out_usd=0.0, local=True))


def test_run_deadline_stops_and_keeps(server, cfg, tmp_path):
    server.otherwise = lambda body: replace(fake.label("sad"), delay_s=0.3)
    with pytest.raises(LLMStoppedError, match=r"llm\.run_deadline_s=1: .*are kept"):
        make(replace(cfg, run_deadline_s=1.0), tmp_path).ask(questions(60))
    asked = len(server.asked)
    assert 1 < asked < 40
    server.otherwise = lambda body: fake.label("sad")
    batch = make(cfg, tmp_path)
    batch.ask(questions(60))
    assert batch.tally.cached == asked, "what was under way when time was up is kept too"


def test_progress_line_counts_and_guesses_the_rest():
    with Progress(total=100, done=20) as progress:
        began = progress._began
        tally = Tally(cached=20, retried=3, paid_usd=0.214, reasons=Counter(refusal=2, failed=1))
        for _ in range(40):
            progress.one_more(tally)
        line = progress.line(tally, began + 80.0)
    assert line == (
        "60 of 100 (20 from the cache): 57 answered, 3 abstained or failed, 3 retried, US$ 0.21 so far, "
        "about 80 seconds left"
    )
