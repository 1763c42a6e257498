"""Token counts, and the estimate before a run."""

from __future__ import annotations

import sys
import types
from dataclasses import replace

import pytest

from ser_bench.config import LlmConfig
from ser_bench.predictors.llm import cost_estimate, request_body
from ser_bench.predictors.llm.cost_estimate import estimate_cost, token_counter
from ser_bench.predictors.llm.parsing.model_answer import ModelAnswer
from ser_bench.predictors.llm.prompting.question import Question
from tests.support import fake_openai as fake
from tests.support.llm_clients import LABELS, make_client, questions

PRICES = {"price_in_usd": 2.5, "price_out_usd": 10.0, "price_date": "2024-10"}
ASSUMED_TIME = "1.0 s per request, assumed, because the cache holds no answer; 4 at once"


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


def fake_tiktoken(monkeypatch, on_disk: bool) -> list[str]:
    """Install a tiktoken that reads its table as the real one does; return the addresses that it tries to fetch."""
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
    counter = token_counter("gpt-4o")
    assert counter.exact and "tiktoken" in counter.method
    prompt = Question(({"role": "system", "content": "a b c"}, {"role": "user", "content": "d e"}))
    assert counter.count(prompt, "f") == 6 + 2 * 3 + 3 == counter.at_most(prompt, "f")


@pytest.mark.parametrize(("model", "on_disk"), [("gpt-4o", False), ("qwen", True)])
def test_nothing_is_fetched_for_counting(monkeypatch, model, on_disk):
    wanted = fake_tiktoken(monkeypatch, on_disk)
    counter = token_counter(model)
    assert not wanted and not counter.exact and "estimate" in counter.method
    assert sys.modules["tiktoken.load"].read_file("x") == b"", "tiktoken is restored"


def test_without_tiktoken_the_method_is_an_estimate(monkeypatch):
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    counter = token_counter("gpt-4o")
    assert not counter.exact and "estimate" in counter.method


@pytest.mark.parametrize("text", ["", "Straße", "日本語のテキスト", "a" * 1000, "mean 210, median 206 Hz", "🙂🙂"])
def test_upper_bound_holds_for_every_tokenizer_of_bytes(monkeypatch, text):
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    counter = token_counter("m")
    prompt = Question(({"role": "user", "content": text},))
    assert counter.count(prompt) <= counter.at_most(prompt) == len(text.encode()) + 6


def test_estimate_leaves_out_cached_answers(cfg, tmp_path):
    make_client(cfg, tmp_path).ask(questions(4))
    client = make_client(cfg, tmp_path)
    asked = [*questions(10), questions(10)[9]]
    estimate = estimate_cost(asked, client.stored(asked), LABELS, False, cfg, client.counter)
    assert (estimate.clips, estimate.cached) == (11, 4)
    tokens = client.counter.count(asked[0], cost_estimate.response_format_text(request_body.json_schema(LABELS)))
    assert estimate.tokens_in == 6 * tokens, "equal questions are asked once"
    assert (estimate.tokens_out, estimate.tokens_out_most) == (6 * 10, 6 * 16), "as long as the answers in the cache"
    assert estimate.usd == pytest.approx((estimate.tokens_in * 2.5 + 60 * 10) / 1e6)
    assert estimate.usd_most == pytest.approx((estimate.tokens_in * 2.5 + 96 * 10) / 1e6)
    text = "\n".join(estimate.lines(cfg))
    for words in ("11, of which 4", "7 to ask", "estimate", "2024-10", "llm.dry_run=true", "4 answers in the cache"):
        assert words in text


def test_time_follows_the_narrowest_limit(cfg):
    def seconds(**changes):
        limited = replace(cfg, **changes)
        estimate = estimate_cost(questions(120), [None] * 120, LABELS, False, limited, token_counter("m"))
        return estimate.seconds, estimate.timed

    assert seconds() == (
        pytest.approx(30.0),
        "1.0 s per request, assumed, because the cache holds no answer; 4 at once",
    )
    assert seconds(requests_per_minute=60) == (pytest.approx(120.0), "llm.requests_per_minute=60")
    assert seconds(requests_per_minute=60, tokens_per_minute=60.0)[1] == "llm.tokens_per_minute=60"


def test_time_of_cached_answers_is_used(cfg):
    known = [ModelAnswer("", "sad", latency_s=8.0, tokens_out=10)] * 20 + [None] * 100
    estimate = estimate_cost(questions(120), known, LABELS, False, cfg, token_counter("m"))
    assert estimate.seconds == pytest.approx(100 * 8.0 / 4) and "20 answers" in estimate.timed
