"""The budget that no run exceeds, prices, and the time limit of a run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ser_bench.config import CacheMode, LlmConfig
from ser_bench.errors import ConfigError, LLMStoppedError
from ser_bench.predictors.llm.budget import check_prices
from tests.support import fake_openai as fake
from tests.support.llm_clients import make_client, questions

PRICES = {"price_in_usd": 2.5, "price_out_usd": 10.0, "price_date": "2024-10"}
PAID_USD = 100 * 2.5e-6 + 10 * 10e-6
"""What one answer of the fake server costs."""


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


def test_budget_is_never_exceeded_and_answers_are_kept(server, cfg, tmp_path):
    tight = replace(cfg, budget_usd=10 * PAID_USD)
    with pytest.raises(LLMStoppedError) as caught:
        make_client(tight, tmp_path).ask(questions(50))
    asked = len(server.asked)
    assert 5 <= asked <= 10
    message = str(caught.value)
    assert f"{asked} of 50 clips were answered" in message and "llm.budget_usd" in message and "are kept" in message
    assert message.count("US$") == 2 and "\n" not in message
    # The same command with more money asks only for the rest.
    client = make_client(replace(cfg, budget_usd=100 * PAID_USD), tmp_path)
    assert len(client.ask(questions(50))) == 50 and len(server.asked) == 50
    assert client.counts.paid_usd == pytest.approx((50 - asked) * PAID_USD)


def test_budget_of_zero_sends_no_request_but_uses_cached_answers(server, cfg, tmp_path):
    make_client(cfg, tmp_path).ask(questions(3))
    without_money = replace(cfg, budget_usd=0.0)
    assert len(make_client(without_money, tmp_path).ask(questions(3))) == 3 == len(server.asked)
    with pytest.raises(LLMStoppedError, match="3 of 4 clips"):
        make_client(without_money, tmp_path).ask(questions(4))
    assert len(server.asked) == 3


def test_message_states_that_answers_are_lost_without_a_cache(server, cfg, tmp_path):
    with pytest.raises(LLMStoppedError, match=r"lost, because llm\.cache"):
        make_client(replace(cfg, budget_usd=3 * PAID_USD, cache=CacheMode.off), tmp_path).ask(questions(9))


def test_lost_answer_counts_with_its_highest_possible_cost(server, cfg, tmp_path):
    server.queue.extend([fake.Reply({}, cut=True)] * 3)
    client = make_client(replace(cfg, max_concurrency=1, budget_usd=1.0), tmp_path)
    client.ask(questions(5))
    assert client.counts.paid_usd == pytest.approx(2 * PAID_USD)
    assert client.budget.spent_usd > 3 * 16 * 10e-6 + 2 * PAID_USD, "three lost answers at their highest possible cost"
    assert client.budget.reserved_usd == 0.0


def test_refused_request_is_not_charged(server, cfg, tmp_path):
    server.queue.extend([fake.error(500, "oops")] * 3)
    client = make_client(replace(cfg, max_concurrency=1, budget_usd=1.0), tmp_path)
    client.ask(questions(5))
    assert client.budget.spent_usd == pytest.approx(2 * PAID_USD)


def test_budget_without_prices_is_refused(cfg):
    with pytest.raises(ConfigError, match=r"llm\.price_in_usd"):
        check_prices(replace(cfg, budget_usd=1.0, price_in_usd=0.0, price_out_usd=0.0))
    with pytest.raises(ConfigError, match="0 or more"):
        check_prices(replace(cfg, budget_usd=-1.0))
    check_prices(replace(cfg, budget_usd=1.0))
    check_prices(replace(cfg, budget_usd=1.0, price_in_usd=0.0, price_out_usd=0.0, local=True))


def test_run_deadline_stops_and_keeps(server, cfg, tmp_path):
    server.otherwise = lambda body: replace(fake.label("sad"), delay_s=0.3)
    with pytest.raises(LLMStoppedError, match=r"llm\.run_deadline_s=1: .*are kept"):
        make_client(replace(cfg, run_deadline_s=1.0), tmp_path).ask(questions(60))
    asked = len(server.asked)
    assert 1 < asked < 40
    server.otherwise = lambda body: fake.label("sad")
    client = make_client(cfg, tmp_path)
    client.ask(questions(60))
    assert client.counts.cached == asked, "answers that were under way when the time was up are kept too"
